package settings

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/evidence/gather"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

const (
	certificateSoon = 30 * 24 * time.Hour
	crlSoon         = 7 * 24 * time.Hour
)

// checkCertificate looks at the host's certificate and key.
func (s *Settings) checkCertificate(context.Context) []Finding {
	const subject = "certificate"
	p := s.Puppet
	id, err := trust.LoadIdentity(p.Cert, p.Key)
	if err != nil {
		return []Finding{finding(LevelError, subject, "%s: has the agent of this host run, and is %q its certname? Set certname, puppet.ssldir or puppet.cert and puppet.key", err, s.Certname)}
	}
	var all []Finding
	if fi, err := os.Stat(p.Key); err == nil && fi.Mode().Perm()&0o007 != 0 {
		all = append(all, finding(LevelError, subject, "every user of this host can use the key: chmod o= %s", p.Key))
	}
	if authority, err := trust.Open(p.Authority, ""); err != nil {
		all = append(all, finding(LevelError, subject, "the CA's certificates: %s: set puppet.ca", err))
	} else if err := verify(authority, id.Certificate, id.Leaf); err != nil {
		all = append(all, finding(LevelError, subject, "%s is not a certificate of the CA in %s: %s", p.Cert, p.Authority, err))
	}
	return append(all, s.judgeCertificate(id.Leaf, time.Now())...)
}

func verify(a *trust.Authority, pair tls.Certificate, leaf *x509.Certificate) error {
	var between []*x509.Certificate
	for _, der := range pair.Certificate[min(1, len(pair.Certificate)):] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between = append(between, c)
		}
	}
	return a.Verify(leaf, between, time.Now(), x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)
}

// judgeCertificate says whether a certificate will do for what this host is to serve.
func (s *Settings) judgeCertificate(c *x509.Certificate, now time.Time) []Finding {
	const subject = "certificate"
	var all []Finding
	names := make([]string, len(c.DNSNames))
	for i, n := range c.DNSNames {
		names[i] = strings.ToLower(n)
	}
	if name := trust.Certname(c); name != s.Certname {
		all = append(all, finding(LevelError, subject, "it is %s's, and certname is %s", name, s.Certname))
	}
	const reissue = "sign it anew with dns_alt_names (the CA needs allow-subject-alt-names)"
	if !slices.Contains(names, s.Certname) {
		all = append(all, finding(LevelError, subject, "its names are %s, without %s: agents abort their run at it; %s", list(names), s.Certname, reissue))
	}
	if s.CA && s.Camaster != "" && !slices.Contains(names, s.Camaster) {
		if s.Roles.PuppetDB != nil {
			all = append(all, finding(LevelError, subject, "its names are %s, without %s, by which masters ask PuppetDB here after a failover; %s", list(names), s.Camaster, reissue))
		} else {
			all = append(all, finding(LevelWarning, subject, "its names are %s, without %s: clients that go by this name will refuse this host as camaster; %s", list(names), s.Camaster, reissue))
		}
	}
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		all = append(all, finding(LevelError, subject, "it expired on %s: have the agent fetch a new one", day(c.NotAfter)))
	case c.NotBefore.After(now):
		all = append(all, finding(LevelError, subject, "it is valid from %s on: is the clock right?", c.NotBefore.Format(time.RFC3339)))
	case left < certificateSoon:
		all = append(all, finding(LevelWarning, subject, "it expires on %s, in %d days: renew it", day(c.NotAfter), days(left)))
	}
	if len(all) == 0 {
		all = append(all, finding(LevelOK, subject, "%s, until %s", list(names), day(c.NotAfter)))
	}
	return all
}

// checkCRL looks at the host's own list, and for the host's certificate in it.
func (s *Settings) checkCRL(ctx context.Context) []Finding {
	p := s.Puppet
	g := gather.New(gather.Config{Cert: p.Cert, Authority: p.Authority, CRL: p.CRL, Timeout: checkTime - time.Second})
	defer g.Close()
	crl := *g.Look(ctx).CRL
	if crl.Error == "" {
		if err := s.revoked(); err != nil {
			return []Finding{finding(LevelError, "crl", "this host's certificate is revoked: sign another one")}
		}
	}
	return []Finding{judgeCRL(crl, p.CRL, time.Now())}
}

// revoked says whether the host's own certificate is.
func (s *Settings) revoked() error {
	id, err := trust.LoadIdentity(s.Puppet.Cert, s.Puppet.Key)
	if err != nil {
		return nil // which is another finding
	}
	a, err := trust.Open(s.Puppet.Authority, s.Puppet.CRL)
	if err != nil {
		return nil
	}
	if err := verify(a, id.Certificate, id.Leaf); errors.Is(err, trust.ErrRevoked) {
		return err
	}
	return nil
}

func judgeCRL(crl evidence.CRL, path string, now time.Time) Finding {
	const subject = "crl"
	if crl.Error != "" {
		return finding(LevelError, subject, "%s: run the agent once (`puppet ssl download_cert` fetches no CRL), or set puppet.crl", crl.Error)
	}
	switch left := crl.NextUpdate.Sub(now); {
	case left <= 0:
		return finding(LevelError, subject, "%s expired on %s: puppetserver refuses every agent with it; fetch the CA's, and look why that one is old", path, day(crl.NextUpdate))
	case left < crlSoon:
		return finding(LevelWarning, subject, "%s expires on %s, in %d days: every agent is refused then; has the CA signed a new one?", path, day(crl.NextUpdate), days(left))
	}
	return finding(LevelOK, subject, "number %s, until %s", crl.Number, day(crl.NextUpdate))
}

func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if len(names) > 8 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:8], ", "), len(names)-8)
	}
	return strings.Join(names, ", ")
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }
