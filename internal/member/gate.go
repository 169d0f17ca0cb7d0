package member

import (
	"context"
	"fmt"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/settings"
)

// gate says whether a service of this host may start now: its unit asks before it does.
// What is allowed to start cannot write unless the host is camaster for sure. A host
// that was camaster a moment ago may be one no more: it may have been away.
func (m *Member) gate(ctx context.Context, service string) LocalGate {
	r := m.roleStatus()
	if r == nil {
		return LocalGate{true, errNoRoles.Error()}
	}
	// puppetserver makes a new CA in an empty directory, whoever is camaster.
	if service == "puppetserver" && m.ca != nil {
		if err := m.ca.start(m.settings()); err != nil {
			return LocalGate{false, err.Error()}
		}
	}
	k := m.knowledge()
	m.role.Know(k) // the gate goes by the newest there is
	switch d := m.role.Decision(); {
	case d.To == role.Open && !d.Hold:
		return LocalGate{true, "the role is to be open, under " + d.Version.String()}
	case d.Untouched && k.Heard:
		return LocalGate{true, d.Reason} // nothing is managed yet
	}
	select {
	case <-m.decided:
	default: // what is found open is about to be closed
		return LocalGate{false, "the member has just started, and has yet to look at this host"}
	}
	refuse := func(why error) LocalGate {
		return LocalGate{false, fmt.Sprintf("the role is %s (%s), and %s", r.State, r.Reason, why)}
	}
	switch service {
	case "puppetserver":
		if m.ca == nil {
			return LocalGate{true, "there is no CA here"}
		}
		// It compiles with a sealed CA, and signs when the role opens.
		if err := m.ca.dir.Seal(ctx); err != nil {
			return refuse(err)
		}
		return LocalGate{true, "the CA is sealed until the role is open"}
	case "postgresql":
		if m.postgres == nil {
			return LocalGate{true, "PostgreSQL is none of the roles here"}
		}
		if err := m.postgres.Guard(); err != nil {
			return refuse(fmt.Errorf("PostgreSQL would be writable: %w", err))
		}
		return LocalGate{true, "PostgreSQL starts as a standby until the role is open"}
	case "puppetdb":
		if p := m.settings().Roles.PuppetDB; p == nil || p.Mode == settings.Hot {
			return LocalGate{true, "PuppetDB may always run here"}
		}
		return refuse(fmt.Errorf("PuppetDB runs on the camaster alone"))
	}
	return LocalGate{true, service + " is none of the roles here"}
}

// start says why puppetserver must not be started with this cadir.
func (a *authority) start(s *settings.Settings) error {
	if s.Roles.CA != nil && s.Roles.CA.Mode == settings.Service {
		if on, err := cadir.Configured(s.Puppet.CAConfig); err == nil && !on {
			return nil // it does not look at it
		}
	}
	return a.dir.CheckStart()
}
