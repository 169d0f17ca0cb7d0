package settings

import "github.com/puppetsrv/puppetsrv/internal/evidence/gather"

// Gather says where this host's evidence is. The functions of its CA, PostgreSQL and role
// are the caller's to add.
func (s *Settings) Gather() gather.Config {
	c := gather.Config{
		Certname: s.Certname, Cert: s.Puppet.Cert, Key: s.Puppet.Key, Authority: s.Puppet.Authority, CRL: s.Puppet.CRL,
		Environments: s.Puppet.Environments, Puppetserver: s.Puppet.URL,
	}
	if db := s.Roles.PuppetDB; db != nil {
		c.PuppetDB, c.PuppetDBMode = db.URL, string(db.Mode)
	}
	return c
}
