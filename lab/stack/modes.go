//go:build linux

package stack

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// SetMembers gives members other modes of the CA and of PuppetDB, as an operator would: on
// the camaster nothing changes but the file; on the other one that may become it, the CA
// service is switched and puppetserver restarted, and PuppetDB started or stopped.
func (s *Stack) SetMembers(ctx context.Context, caMode, puppetDBMode string) error {
	if s.config.CAMode == caMode && s.config.PuppetDBMode == puppetDBMode {
		return nil
	}
	st, err := s.Status(ctx, "ns2")
	if err != nil {
		return err
	}
	s.config.CAMode, s.config.PuppetDBMode = caMode, puppetDBMode
	if err := s.writeMembers(); err != nil {
		return err
	}
	var all []func() error
	for _, name := range Capable {
		h := s.Host(name)
		// What the member starts is not started by a boot.
		h.services = slices.DeleteFunc(slices.Clone(h.services), func(name string) bool { return name == PuppetDB })
		if puppetDBMode == "hot" {
			h.services = append(h.services, PuppetDB)
		}
		camaster := strings.TrimSuffix(st.Camaster.Host, ".") == h.FQDN()
		all = append(all, func() error {
			if camaster {
				return h.Service(ctx, "restart", Member)
			}
			return h.setStandby(ctx, caMode, puppetDBMode)
		})
	}
	return each(all...)
}

// setStandby makes a standby what its member.yaml says. A member must not meet what its
// file does not allow: it would close that, and demand a rejoin.
func (h *Host) setStandby(ctx context.Context, caMode, puppetDBMode string) error {
	puppetserver := func() error {
		if err := h.caService(caMode == "hot"); err != nil {
			return err
		}
		return h.Service(ctx, "restart", Puppetserver)
	}
	puppetdb := func() error {
		verb := "stop"
		if puppetDBMode == "hot" {
			verb = "start"
		}
		return h.Service(ctx, verb, PuppetDB)
	}
	switch {
	case caMode == "service" && puppetDBMode == "service":
		if err := each(puppetserver, puppetdb); err != nil {
			return err
		}
		return h.Service(ctx, "restart", Member)
	case caMode == "hot" && puppetDBMode == "hot":
		if err := h.Service(ctx, "restart", Member); err != nil {
			return err
		}
		return each(puppetserver, puppetdb)
	}
	return fmt.Errorf("modes %s and %s are not tried together", caMode, puppetDBMode)
}

// Dark reports whether nothing of what a boot starts runs on a host.
func (s *Stack) Dark(h *Host) bool {
	return len(h.services) > 0 && !slices.ContainsFunc(h.services, h.Runs)
}
