//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

var secondary = scenario{
	name: "secondary", title: "NSD takes the zone, follows it, and outlives the nodes",
	run: func(t *T) {
		ctx := t.Context()
		t.Must(t.Secondary(ctx))
		equalZones(t, "NSD's zone")
		followsDrain(t, "m2", "datacenter1")

		before, _ := answers(t, "ns3")
		// Whoever has a secondary lists it where hosts look for names: agents, and also masters. Those
		// look for the camaster's PuppetDB, and without it their members drain them.
		for _, h := range t.Hosts(append([]string{"a1"}, stack.Masters...)...) {
			resolveBySecondary(t, h)
		}
		t.Must(killNodes(t))
		_, err := t.Serial(ctx, "ns1", stack.Domain)
		after, some := answers(t, "ns3")
		t.Check(err != nil && slices.Equal(after, before), "both nodes killed, ns1 is silent: NSD", "all SRV records and the camaster as before", "%s", some)
		r := t.Host("a1").Agent(ctx, "--debug")
		t.Check(r.Applied() && onlyTo(routes(r), mastersIn(t, "datacenter1")...), "a run of a1, whose resolver is NSD",
			"as ever, with local masters", "exit code %d after %.1f s; %s", r.Code, r.Took.Seconds(), routing(routes(r)))

		began := time.Now()
		t.Must(startNodes(t))
		t.Must(stack.Until(ctx, "both nodes answer", func() error {
			for _, n := range stack.Nodes {
				if _, err := t.Serial(ctx, n, stack.Domain); err != nil {
					return err
				}
			}
			return nil
		}))
		equalZones(t, fmt.Sprintf("nodes started again (%.1f s): NSD's zone", time.Since(began).Seconds()))
		followsDrain(t, "m4", "datacenter2")
	},
}

// equalZones: NSD has what both nodes have, record for record. A node's zone may still
// change when this begins.
func equalZones(t *T, what string) {
	began := time.Now()
	var srv, all int
	var serial uint32
	err := stack.UntilWithin(t.Context(), time.Minute, "NSD has the nodes' zone", func() error {
		var zones [][]string
		for _, server := range []string{"ns1", "ns2", "ns3"} {
			zone, err := t.Transfer(t.Context(), server)
			if err != nil {
				return err
			}
			zones = append(zones, zone)
		}
		for i, zone := range zones[1:] {
			if !slices.Equal(zone, zones[0]) {
				return fmt.Errorf("%s differs from ns1: %v; %v", []string{"ns2", "ns3"}[i], minus(zone, zones[0]), minus(zones[0], zone))
			}
		}
		all, srv = len(zones[0]), 0
		for _, line := range zones[0] {
			if strings.Contains(line, "\tsrv\t") {
				srv++
			}
		}
		var err error
		serial, err = t.Serial(t.Context(), "ns3", stack.Domain)
		return err
	})
	// Five services of two datacenters: three with four masters, two with the camaster.
	t.Check(err == nil && srv == 2*(3*4+2), what, "its serial and all records as on both nodes, 28 SRV records among them",
		"%s", seenOr(err, "serial %d, %d records, %d of them SRV, after %.1f s", serial, all, srv, time.Since(began).Seconds()))
}

// minus are the lines of a that b does not have, but not more than a few.
func minus(a, b []string) (some []string) {
	for _, line := range a {
		if !slices.Contains(b, line) && len(some) < 5 {
			some = append(some, line)
		}
	}
	return some
}

// seenOr is what is said where there is no error.
func seenOr(err error, format string, args ...any) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf(format, args...)
}

// followsDrain: NSD is told of a change.
func followsDrain(t *T, short, datacenter string) {
	ctx := t.Context()
	master := t.Host(short).FQDN()
	undrain := func() error { return t.Ctl(ctx, "ns1", "undrain", master).Error() }
	drained := true
	t.Cleanup(func() {
		if drained {
			t.Must(undrain())
		}
	})
	var took []string
	var err error
	for _, listed := range []bool{false, true} {
		began := time.Now()
		if listed {
			t.Must(undrain())
			drained = false
		} else {
			t.Must(t.Ctl(ctx, "ns1", "drain", master, "--reason", "the secondary").Error())
		}
		// Well below the zone's refresh and retry: nothing but NOTIFY brings it so soon.
		err = stack.UntilWithin(ctx, 30*time.Second, fmt.Sprintf("NSD lists %s: %v", short, listed), func() error {
			found, err := lists(ctx, t, "ns3", datacenter, master)
			if err == nil && found != listed {
				err = fmt.Errorf("it does not yet")
			}
			return err
		})
		if err != nil {
			break
		}
		took = append(took, seconds(time.Since(began)))
	}
	t.Check(err == nil, short+" is drained, and undrained", "NSD follows by NOTIFY, within 30 s (refresh and retry of the SOA are 3600 s, 600 s)", "%s",
		seenOr(err, "%s after each command's start", strings.Join(took, ", ")))
}

// last is the priority from which on masters stand that get no new work.
const last = 100

// lists reports whether a server lists a master for a datacenter's agents, and not among
// the last.
func lists(ctx context.Context, t *T, server, datacenter, master string) (bool, error) {
	all, err := t.Targets(ctx, server, "_x-puppet._tcp."+stack.DomainOf(datacenter))
	return slices.ContainsFunc(all, func(s stack.SRV) bool { return s.Target == master && s.Priority < last }), err
}

// answers are those that agents and masters need, as a server gives them, and some of them
// for the table.
func answers(t *T, server string) (all []string, some string) {
	for _, dc := range []string{"datacenter1", "datacenter2"} {
		for _, service := range []string{"_x-puppet", "_x-puppet-report", "_x-puppet-fileserver", "_x-puppet-ca", "_x-puppet-db"} {
			targets, err := t.Targets(t.Context(), server, service+"._tcp."+stack.DomainOf(dc))
			t.Must(err)
			all = append(all, fmt.Sprint(service, dc, targets))
			if service == "_x-puppet" {
				some += dc + ":"
				for _, s := range targets {
					some += fmt.Sprintf(" %s at %d,", label(s.Target), s.Priority)
				}
				some = strings.TrimSuffix(some, ",") + "; "
			}
		}
	}
	camaster := t.CNAME(t.Context(), server, stack.Camaster)
	return append(all, camaster), some + "the camaster " + label(camaster)
}

// killNodes kills both nodes at once, and has the scenario's end start them.
func killNodes(t *T) error {
	t.Cleanup(func() { t.Must(startNodes(t)) })
	for _, h := range t.Hosts(stack.Nodes...) {
		if err := h.Kill(stack.Node); err != nil {
			return err
		}
	}
	return nil
}

// startNodes starts the nodes that do not run.
func startNodes(t *T) error {
	for _, h := range t.Hosts(stack.Nodes...) {
		if err := h.Service(t.Context(), "start", stack.Node); err != nil {
			return err
		}
	}
	return nil
}

// resolveBySecondary has a host ask NSD alone, until the returned function or the scenario's
// end, whichever is first.
func resolveBySecondary(t *T, h *stack.Host) (back func()) {
	const path = "/etc/resolv.conf"
	before := h.Read(path)
	back = func() { t.Must(h.Write(path, before, 0o644, "root")) }
	t.Cleanup(back)
	t.Must(h.Write(path, fmt.Sprintf("nameserver %s\noptions timeout:1 attempts:2\n", t.Host("ns3").Addr), 0o644, "root"))
	return back
}
