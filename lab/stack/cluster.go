//go:build linux

package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

// writeNodes writes the nodes' files.
func (s *Stack) writeNodes() error {
	for _, name := range Nodes {
		h := s.Host(name)
		if err := h.render("example.net.zone", "/etc/puppetsrv/example.net.zone", 0o644, "root", map[string]any{"Hosts": s.order}); err != nil {
			return err
		}
		if err := h.render("Corefile", "/etc/puppetsrv/Corefile", 0o644, "root", map[string]any{
			"Addr": h.Addr, "Short": h.Short, "Datacenter": h.Datacenter, "Secondary": s.Host("ns3").Addr,
			"Targets": s.config.Targets, "CATarget": s.config.CATarget,
		}); err != nil {
			return err
		}
	}
	return nil
}

// writeMembers writes the members' files.
func (s *Stack) writeMembers() error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	for _, name := range Masters {
		h := s.Host(name)
		other := ""
		for _, c := range Capable {
			if c != name {
				other = c
			}
		}
		if err := h.render("member.yaml", "/etc/puppetsrv/member.yaml", 0o600, "root", map[string]any{
			"Addr": h.Addr, "Datacenter": h.Datacenter, "Capable": name != "m2" && name != "m4", "Other": other,
			"CAMode": s.config.CAMode, "PuppetDBMode": s.config.PuppetDBMode, "PostgreSQLBin": bin,
		}); err != nil {
			return err
		}
	}
	return nil
}

// Config is what the stack runs with.
func (s *Stack) Config() Config { return s.config }

// SetNodes gives nodes other `targets` and `ca_target`, by a reload of CoreDNS, and
// returns when both answer so.
func (s *Stack) SetNodes(ctx context.Context, targets, caTarget string) error {
	if s.config.Targets == targets && s.config.CATarget == caTarget {
		return nil
	}
	s.config.Targets, s.config.CATarget = targets, caTarget
	if err := s.writeNodes(); err != nil {
		return err
	}
	for _, name := range Nodes {
		if err := s.Host(name).Service(ctx, "reload", Node); err != nil {
			return err
		}
	}
	local := s.Host("m1").FQDN()
	if targets == "service" {
		local = s.Host("m1").ServiceName()
	}
	for _, name := range Nodes {
		if err := Until(ctx, name+" answers as configured", func() error {
			masters, err := s.Targets(ctx, name, "_x-puppet._tcp.datacenter1."+Domain)
			if err != nil {
				return err
			}
			cas, err := s.Targets(ctx, name, "_x-puppet-ca._tcp.datacenter1."+Domain)
			if err != nil {
				return err
			}
			named := slices.ContainsFunc(masters, func(r SRV) bool { return r.Target == local })
			if !named || len(cas) != 1 || (cas[0].Target == Camaster) != (caTarget == "camaster") {
				return fmt.Errorf("it answers %v, and %v for the CA", masters, cas)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// Status is what a node says of the cluster.
func (s *Stack) Status(ctx context.Context, node string) (admin.Status, error) {
	var st admin.Status
	r := s.Ctl(ctx, node, "status", "-o", "json")
	if err := json.Unmarshal([]byte(r.Out), &st); err != nil {
		return st, fmt.Errorf("%w: %v", err, r)
	}
	return st, nil
}

// Well waits until every node says that nothing is wrong, and every service that a boot
// starts runs.
func (s *Stack) Well(ctx context.Context) error {
	return Until(ctx, "all is well", func() error {
		for _, h := range s.order {
			for _, name := range h.services {
				if !h.Runs(name) {
					return fmt.Errorf("%s does not run on %s", name, h.Short)
				}
			}
		}
		for _, node := range Nodes {
			st, err := s.Status(ctx, node)
			if err != nil {
				return err
			}
			for _, p := range st.Problems {
				return fmt.Errorf("%s: %s: %s", node, p.Subject, p.Text)
			}
			for _, m := range st.Masters {
				for _, v := range m.Verdicts {
					if v.Down || !v.Listed {
						return fmt.Errorf("%s has %s down for %s: %s %s", node, m.Host, v.Datacenter, v.Reason, v.Detail)
					}
				}
			}
		}
		return nil
	})
}
