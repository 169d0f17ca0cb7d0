package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/camaster"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// daemon is a master's member as far as the cluster sees it: what it says is the test's.
type daemon struct {
	*cluster.Cluster
	name string

	mu    sync.Mutex
	asked []string
	err   error // of what it is asked
}

func (b *bunch) daemon(name string) *daemon {
	b.t.Helper()
	h := &daemon{name: name}
	trust := b.trustOf(name)
	bind := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(b.t))
	var err error
	h.Cluster, err = cluster.Start(cluster.Config{
		Name: name, Role: cluster.RoleMaster, Identity: trust.Identity, Authority: trust.Authority,
		Policy: cluster.Policy{Join: slices.Clone(b.seeds), Signers: func(s string) bool { return strings.HasPrefix(s, "ns") }},
		Disk:   store.Dir(b.t.TempDir()), Gossip: &gossip.Config{Bind: bind, Profile: gossip.Local}, Log: newQuietLog(b.t),
		Operate: func(_ context.Context, op string, arg []byte) (any, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.asked = append(h.asked, op+" "+string(arg))
			return nil, h.err
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(h.Close)
	return h
}

// says publishes evidence.
func (h *daemon) says(state, version string) { h.saysOf(state, version, func(*evidence.Role) {}) }

func (h *daemon) saysOf(state, version string, edit func(*evidence.Role)) {
	serial := map[bool]string{true: "0B", false: "0A"}[state == evidence.Open]
	e := &evidence.Evidence{
		CA:   &evidence.CA{Mode: "hot", Complete: true, Hash: "h1", Serial: serial, Sealed: state != evidence.Open},
		Role: &evidence.Role{State: state, Version: version, Boot: h.Boot(), Services: []evidence.Service{{Name: "ca", State: map[bool]string{true: "open", false: "closed"}[state == evidence.Open]}}},
	}
	edit(e.Role)
	h.Publish(cluster.Report{Datacenter: "dc1", Release: "test", Member: e})
}

// value is what the register says now, as members read it.
func (h *daemon) value() camaster.Value {
	v, _, _ := camaster.Of(h.Registers())
	return v
}

func TestFailoverAndSwitchover(t *testing.T) {
	b := newBunch(t)
	n := b.begin("ns1", b.node("ns1", "dc1", nil))
	b.eventually("both are observed", func() bool { return n.Ready() })
	if _, err := b.set(n, "m1.example.net", false); err != nil { // without members, as ever
		t.Fatal(err)
	}
	one, two := b.daemon("m1.example.net"), b.daemon("m2.example.net")
	ctx := context.Background()
	version := func() string {
		c, err := n.client.Camaster(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return c.Version
	}
	first := version()
	one.says(evidence.Open, first)
	two.says(evidence.Standby, first)
	b.eventually("the members are shown", func() bool {
		m, err := n.client.Master(ctx, "m2.example.net")
		return err == nil && m.Member != nil && m.Member.Fresh && m.Role().State == evidence.Standby && len(m.Evidence) == 1 && len(m.Verdicts) == 2
	})
	plan := func(kind admin.Kind) admin.Plan {
		p, err := n.client.Plan(ctx, kind, "m2.example.net")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	refused := func(set admin.SetCamaster, kind, rule string) {
		t.Helper()
		set.Reason, set.Expect = "drill", version()
		_, err := n.client.SetCamaster(ctx, set)
		var f *admin.Fault
		if !errors.As(err, &f) || f.Type != kind || !strings.Contains(strings.Join(append(f.Rules, f.Detail), "\n"), rule) {
			t.Errorf("%+v: %v (%+v), want %s for %q", set, err, f, kind, rule)
		}
	}
	if _, err := n.client.Plan(ctx, admin.KindFailover, "m9.example.net"); err == nil || !strings.Contains(err.Error(), "m9.example.net is no master") {
		t.Errorf("a plan for a stranger: %v", err)
	}
	if p := plan(admin.KindFailover); p.Possible || p.From != "m1.example.net" || p.Version != first || p.Conditions[0].Name != "camaster lost" || p.Conditions[0].OK {
		t.Errorf("%+v", p)
	}
	refused(admin.SetCamaster{Host: "m2.example.net", Kind: admin.KindFailover}, "unsafe", "m1.example.net is up and its member is alive")
	refused(admin.SetCamaster{Host: "m2.example.net", Kind: admin.KindSwitchover}, "no-handover", "m1.example.net does not hand over to m2.example.net")
	refused(admin.SetCamaster{Host: "m2.example.net", Kind: admin.KindHandover, Handover: "m1.example.net"}, "not-camaster", "the camaster is m1.example.net")
	b.eventually("a switchover is possible", func() bool { return plan(admin.KindSwitchover).Possible })

	problems := func() (text string) {
		for _, p := range b.status(n).Problems {
			text += p.Severity + " " + p.Text + "\n"
		}
		return text
	}

	// Handover, the end of it, and the way back by setting.
	write := func(set admin.SetCamaster) admin.Result {
		t.Helper()
		set.Reason, set.Expect = "drill", version()
		r, err := n.client.SetCamaster(ctx, set)
		if err != nil {
			t.Fatalf("%+v: %v", set, err)
		}
		return r
	}
	r := write(admin.SetCamaster{Host: "m1.example.net", Kind: admin.KindHandover, Handover: "m2.example.net"})
	if r.Write.Kind != admin.KindHandover || r.Write.Handover != "m2.example.net" || r.Write.To != "m1.example.net" || r.Write.Forced {
		t.Errorf("%+v", r.Write)
	}
	b.eventually("members know the handover", func() bool {
		v := two.value()
		return v.Host == "m1.example.net." && v.Handover == "m2.example.net." && v.Boot == one.Boot()
	})
	if got := cname(n.Node); got != "m1.example.net." {
		t.Errorf("DNS has moved to %s", got)
	}
	if p := plan(admin.KindSwitchover); p.Possible || !p.Handover {
		t.Errorf("%+v", p)
	}
	refused(admin.SetCamaster{Host: "m2.example.net", Kind: admin.KindSwitchover}, "unsafe", "the role on m1.example.net is open under")
	one.saysOf(evidence.Closed, version(), func(r *evidence.Role) { r.Unclean = "the host was booted" })
	b.eventually("it is not clean", func() bool {
		p := plan(admin.KindSwitchover)
		return !p.Possible && !p.Loss.Known && strings.Contains(p.Loss.Detail, "the host was booted")
	})
	b.eventually("that is a problem", func() bool {
		return strings.Contains(problems(), "warning what was closed on m1.example.net for the handover may not all have reached the others: the host was booted")
	})
	refused(admin.SetCamaster{Host: "m2.example.net", Kind: admin.KindSwitchover, Force: true}, "unsafe", "may not all be on m2.example.net: the host was booted")
	one.says(evidence.Closed, version())
	b.eventually("all is handed over", func() bool { return plan(admin.KindSwitchover).Possible })
	// The hash is the same, which is what counts here; the camaster has signed no more.
	r = write(admin.SetCamaster{Host: "m2.example.net", Kind: admin.KindSwitchover})
	if r.Write.From != "m1.example.net" || r.Write.Kind != admin.KindSwitchover || !strings.HasPrefix(r.Write.Version, "0.") {
		t.Errorf("%+v", r.Write)
	}
	b.eventually("members know the new one", func() bool {
		v := one.value()
		return v.Host == "m2.example.net." && v.Handover == "" && v.Boot == two.Boot()
	})
	b.eventually("DNS has moved", func() bool { return cname(n.Node) == "m2.example.net." })

	// Both are wrong about themselves, and it is told.
	one.says(evidence.Open, first)
	two.says(evidence.Failed, version())
	b.eventually("roles are problems", func() bool {
		text := problems()
		return strings.Contains(text, "error the role on m1.example.net is open under "+first+", and it is not the camaster") &&
			strings.Contains(text, "error the role on m2.example.net fails")
	})

	one.says(evidence.Closed, version())
	b.eventually("a standby that is none is one", func() bool {
		return strings.Contains(problems(), "warning the role on m1.example.net is closed, and it follows nobody")
	})

	// m2 is lost. Its member's last word is kept, though it is dead, and what it had
	// signed since is known to be missing.
	one.says(evidence.Standby, version())
	two.says(evidence.Open, version())
	two.Publish(func() cluster.Report {
		e := &evidence.Evidence{CA: &evidence.CA{Mode: "hot", Complete: true, Hash: "h2", Serial: "0C"}, Role: &evidence.Role{State: evidence.Open, Version: version()}}
		return cluster.Report{Datacenter: "dc2", Release: "test", Member: e}
	}())
	b.eventually("m2 has told what it has", func() bool {
		m, err := n.client.Master(ctx, "m2.example.net")
		return err == nil && m.Member.Evidence.CA.Serial == "0C"
	})
	b.masters[1].Close()
	two.Close()
	last := func() string {
		p, err := n.client.Plan(ctx, admin.KindFailover, "m1.example.net")
		if err != nil {
			t.Fatal(err)
		}
		var in []string
		for _, c := range p.Conditions {
			if c.Refuses(false, false) {
				in = append(in, c.Name+" "+c.Passed)
			}
		}
		return strings.Join(in, ", ")
	}
	b.eventually("only the loss is in the way", func() bool { return last() == "CA in step accept-data-loss" })
	refused(admin.SetCamaster{Host: "m1.example.net", Kind: admin.KindFailover, Force: true}, "unsafe", "(accept-data-loss passes over this)")
	r = write(admin.SetCamaster{Host: "m1.example.net", Kind: admin.KindFailover, AcceptDataLoss: true})
	if r.Write.Version != "1.4.ns1.example.net" || r.Write.Forced || r.Write.Accepted == "" || r.Write.Kind != admin.KindFailover {
		t.Errorf("%+v", r.Write)
	}
	if c, err := n.client.Camaster(ctx); err != nil || c.Kind != admin.KindFailover || c.Forced {
		t.Errorf("%+v, %v", c, err)
	}
	b.eventually("m1 knows, and for which start", func() bool { v := one.value(); return v.Host == "m1.example.net." && v.Boot == one.Boot() })
	h, err := n.client.History(ctx, "camaster", 0)
	if err != nil || len(h) != 4 || h[0].Accepted != r.Write.Accepted || h[1].Kind != admin.KindSwitchover || h[2].Handover != "m2.example.net" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestRejoinIsAskedOfTheMember(t *testing.T) {
	b := newBunch(t)
	n := b.begin("ns1", b.node("ns1", "dc1", nil))
	b.eventually("both are observed", func() bool { return n.Ready() })
	ctx := context.Background()
	refused := func(host, kind string) {
		t.Helper()
		_, err := n.client.Rejoin(ctx, host)
		var f *admin.Fault
		if !errors.As(err, &f) || f.Type != kind {
			t.Errorf("rejoin %s: %v, want %s", host, err, kind)
		}
	}
	refused("m1.example.net", "is-camaster")
	refused("m2.example.net", "no-member")
	refused("m9.example.net", "unknown-master")
	two := b.daemon("m2.example.net")
	two.says(evidence.Closed, "0")
	b.eventually("the member is shown", func() bool { m, err := n.client.Master(ctx, "m2.example.net"); return err == nil && m.Member != nil })
	r, err := n.client.Rejoin(ctx, "m2.example.net")
	if err != nil || r.Host != "m2.example.net" || r.ID == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	arg, _ := json.Marshal(map[string]string{"id": r.ID})
	two.mu.Lock()
	if !slices.Equal(two.asked, []string{"rejoin " + string(arg)}) {
		t.Errorf("it was asked %q", two.asked)
	}
	two.err = errors.New("a rejoin is under way")
	two.mu.Unlock()
	refused("m2.example.net", "member-refused")
	two.Close()
	b.eventually("the member is silent", func() bool { m, err := n.client.Master(ctx, "m2.example.net"); return err == nil && !m.Member.Fresh })
	refused("m2.example.net", "member-silent")
}
