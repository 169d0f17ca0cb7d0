//go:build linux

package stack

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
)

// Up makes everything as an operator would: a Puppet site first, and then puppetsrv on it.
// It returns when all is well.
func (s *Stack) Up(ctx context.Context) error {
	m1, m3 := s.Host("m1"), s.Host("m3")
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"hosts, and the CA on m1", func(ctx context.Context) error { return s.makeCA(ctx) }},
		{"puppetserver, PostgreSQL and PuppetDB on m1", func(ctx context.Context) error {
			return each(
				func() error { return m1.Service(ctx, "start", Puppetserver) },
				func() error {
					if err := m1.makePrimary(ctx); err != nil {
						return err
					}
					return m1.Service(ctx, "start", PuppetDB)
				})
		}},
		{"certificates for all hosts, a standby on m3", func(ctx context.Context) error { return s.bootstrapAll(ctx) }},
		{"a cluster of nodes and members, m1 the camaster", func(ctx context.Context) error { return s.makeCluster(ctx) }},
		{"a secondary of the zone", func(ctx context.Context) error { return s.Secondary(ctx) }},
		{"the other puppetservers, PuppetDB on m3", func(ctx context.Context) error {
			return each(
				func() error { return m3.Service(ctx, "start", PuppetDB) },
				func() error { return s.Host("m2").Service(ctx, "start", Puppetserver) },
				func() error { return m3.Service(ctx, "start", Puppetserver) },
				func() error { return s.Host("m4").Service(ctx, "start", Puppetserver) })
		}},
		{"an agent in each datacenter", func(ctx context.Context) error { return s.makeAgents(ctx) }},
		{"all is well", func(ctx context.Context) error { return s.Well(ctx) }},
	} {
		if err := s.step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	return nil
}

// makeCA writes all masters' files and makes the CA with m1's own certificate.
func (s *Stack) makeCA(ctx context.Context) error {
	for _, name := range Masters {
		if err := s.Host(name).configurePuppet(); err != nil {
			return err
		}
	}
	m1 := s.Host("m1")
	names := []string{m1.FQDN(), Camaster}
	for _, m := range Masters {
		names = append(names, s.Host(m).ServiceName())
	}
	if err := m1.Run(ctx, "puppetserver", "ca", "setup", "--certname", m1.FQDN(), "--subject-alt-names", strings.Join(names, ",")).Error(); err != nil {
		return err
	}
	return m1.configurePuppetDB(true)
}

// bootstrapAll gets everybody else a certificate from m1.
func (s *Stack) bootstrapAll(ctx context.Context) error {
	var all []func() error
	for _, name := range []string{"ns1", "ns2", "m2", "m3", "m4"} {
		h := s.Host(name)
		all = append(all, func() error {
			if h.Read("/etc/puppet/puppet.conf") == "" || !strings.HasPrefix(name, "m") {
				if err := h.render("puppet.conf", "/etc/puppet/puppet.conf", 0o644, "root", map[string]any{"Short": h.Short, "Names": ""}); err != nil {
					return err
				}
			}
			return h.bootstrap(ctx, "m1."+Domain)
		})
	}
	if err := each(all...); err != nil {
		return err
	}
	for _, name := range Capable {
		if name != "m1" {
			if err := s.Host(name).configurePuppetDB(false); err != nil {
				return err
			}
		}
	}
	// m1 has its tables now; from here on it may start as a standby too.
	if err := s.Host("m1").migrate(false); err != nil {
		return err
	}
	return s.Host("m3").makeStandby(ctx, s.Host("m1"))
}

// makeCluster starts nodes and members, and makes m1 the camaster by the register: before
// that, members touch nothing. It returns when m3 has the CA.
func (s *Stack) makeCluster(ctx context.Context) error {
	key, err := gossip.Generate()
	if err != nil {
		return err
	}
	for _, name := range append(append([]string(nil), Nodes...), Masters...) {
		if err := s.Host(name).Write("/etc/puppetsrv/gossip.key", base64.StdEncoding.EncodeToString(key)+"\n", 0o600, "root"); err != nil {
			return err
		}
	}
	if err := s.writeNodes(); err != nil {
		return err
	}
	if err := s.writeMembers(); err != nil {
		return err
	}
	var all []func() error
	for _, name := range Nodes {
		all = append(all, func() error { return s.Host(name).Service(ctx, "start", Node) })
	}
	for _, name := range Masters {
		all = append(all, func() error { return s.Host(name).Service(ctx, "start", Member) })
	}
	if err := each(all...); err != nil {
		return err
	}
	for _, name := range Masters {
		for _, service := range []string{Puppetserver, PuppetDB, PostgreSQL} {
			if err := s.Host(name).Write("/etc/lab/gates/"+service, "", 0o644, "root"); err != nil {
				return err
			}
		}
	}
	if err := Until(ctx, "ns1 has heard all members", func() error {
		st, err := s.Status(ctx, "ns1")
		if err != nil {
			return err
		}
		for _, m := range st.Masters {
			if m.Member == nil || !m.Member.Fresh {
				return fmt.Errorf("%s is silent", m.Host)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	if err := Until(ctx, "m1 is made the camaster", func() error {
		return s.Ctl(ctx, "ns1", "camaster", "set", "m1."+Domain, "--reason", "the first one", "--yes", "--wait", "all").Error()
	}); err != nil {
		return err
	}
	return Until(ctx, "m3 has the CA", func() error {
		if _, err := os.Stat(s.Host("m3").Path("/etc/puppet/puppetserver/ca/ca_key.pem")); err != nil {
			return err
		}
		return nil
	})
}

// makeAgents makes an agent in each datacenter. One is told where it is by a file, as a
// provisioning would; the other one learns it from its address.
func (s *Stack) makeAgents(ctx context.Context) error {
	var all []func() error
	for i, name := range Agents {
		h, err := s.NewAgent(name, fmt.Sprintf("datacenter%d", i+1))
		if err != nil {
			return err
		}
		if i == 0 {
			if err := h.Write("/etc/puppetsrv/datacenter", h.Datacenter+"\n", 0o644, "root"); err != nil {
				return err
			}
		}
		all = append(all, func() error { return h.Join(ctx) })
	}
	return each(all...)
}

// Join is a new host's first two runs: after them its settings are those of the class.
func (h *Host) Join(ctx context.Context) error {
	if r := h.FirstRun(ctx); !r.Applied() {
		return fmt.Errorf("the first run: %v", r)
	}
	return Until(ctx, h.Short+" has its settings from the class", func() error {
		if domain, err := h.Setting(ctx, "srv_domain"); err != nil || domain == DomainOf(h.Datacenter) {
			return err
		}
		return fmt.Errorf("srv_domain is not set: %v", h.FirstRun(ctx))
	})
}

// Ctl gives an operator's command at a node.
func (s *Stack) Ctl(ctx context.Context, node string, args ...string) Result {
	return s.Host(node).Run(ctx, append([]string{"puppetsrvctl"}, args...)...)
}

// Until waits until a condition that nothing announces has no error.
func Until(ctx context.Context, what string, condition func() error) error {
	return UntilWithin(ctx, patience, what, condition)
}

// UntilWithin is Until with another patience.
func UntilWithin(ctx context.Context, patience time.Duration, what string, condition func() error) error {
	for deadline := time.Now().Add(patience); ; {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still not after %v: %s: %w", patience, what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
