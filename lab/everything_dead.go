//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/lab/stack"
)

var everythingDead = scenario{
	name: "everything-dead", title: "with all masters dead agents go on, and power alone brings all back",
	run: func(t *T) {
		ctx := t.Context()
		masters := t.Hosts(stack.Masters...)
		for _, a := range stack.Agents {
			if r := t.Host(a).Agent(ctx); !r.Applied() {
				t.Fatalf("a run with everything well: %v", r)
			}
		}
		version := camasterOf(t, "ns1").Version
		t.Must(t.Off(masters...))
		dead := true
		t.Cleanup(func() {
			if dead {
				t.Must(t.On(ctx, masters...))
			}
		})
		t.Must(stack.Until(ctx, "both nodes have all masters down", func() error {
			for _, n := range stack.Nodes {
				st, err := t.Status(ctx, n)
				if err != nil {
					return err
				}
				for _, m := range st.Masters {
					for _, v := range m.Verdicts {
						if !v.Down {
							return fmt.Errorf("%s has %s up for %s", n, m.Host, v.Datacenter)
						}
					}
				}
			}
			return nil
		}))
		for _, n := range stack.Nodes {
			var counts []string
			whole := true
			for _, dc := range []string{"datacenter1", "datacenter2"} {
				for _, service := range []string{"_x-puppet", "_x-puppet-ca"} {
					all, err := t.Targets(ctx, n, service+"._tcp."+stack.DomainOf(dc))
					want := map[string]int{"_x-puppet": 4, "_x-puppet-ca": 1}[service]
					whole = whole && err == nil && len(all) == want
					counts = append(counts, fmt.Sprint(len(all)))
				}
			}
			cname := t.CNAME(ctx, n, stack.Camaster)
			t.Check(whole && cname == "m1."+stack.Domain, "DNS of "+n, "4 masters and the CA for each datacenter, the camaster m1", "%s; %s", strings.Join(counts, ", "), cname)
		}
		for _, a := range stack.Agents {
			r := t.Host(a).ScheduledRun(ctx)
			t.Check(r.Applied() && strings.Contains(r.Out+r.Err, "cached catalog"), "a run of "+a, "it applies its cached catalog", "exit code %d after %.1f s, %s", r.Code, r.Took.Seconds(), sayings(r, "Using cached catalog", "Applied catalog"))
		}

		all := append(t.Hosts(stack.Nodes...), masters...)
		t.Must(t.Off(all...))
		back := time.Now()
		dead = false
		t.Must(t.On(ctx, all...))
		t.Must(t.Well(ctx))
		now := camasterOf(t, "ns1")
		t.Check(now.Host == "m1."+stack.Domain && now.Version == version, "power comes back on all masters and nodes", "all well with no hand, m1 the camaster as before",
			"all well %.0f s later; %s under %s, as before", time.Since(back).Seconds(), now.Host, now.Version)
		name := fmt.Sprintf("y%d.example.net", time.Now().UnixNano())
		_, err := stack.Requester{From: t.Host("a1")}.Sign(ctx, t.Host("m1"), "m1."+stack.Domain, name)
		t.Check(err == nil, "a new host asks m1", "signed", "%s", map[bool]string{true: "signed", false: firstLine(err)}[err == nil])
		for _, a := range stack.Agents {
			r := t.Host(a).Agent(ctx)
			t.Check(r.Applied(), "a run of "+a, "as ever", "exit code %d after %.1f s", r.Code, r.Took.Seconds())
		}
	},
}
