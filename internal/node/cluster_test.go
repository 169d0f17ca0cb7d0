package node_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// quietLog is a log that nobody reads, but when a test fails.
type quietLog struct {
	t     *testing.T
	ended *atomic.Bool // the test; memberlist's last probe may outlive it
}

func newQuietLog(t *testing.T) quietLog {
	l := quietLog{t, new(atomic.Bool)}
	t.Cleanup(func() { l.ended.Store(true) })
	return l
}

func (l quietLog) put(format string, v []any) {
	if !l.ended.Load() {
		l.t.Logf(format, v...)
	}
}

func (l quietLog) Debugf(string, ...any)            {}
func (l quietLog) Infof(format string, v ...any)    { l.put("I "+format, v) }
func (l quietLog) Warningf(format string, v ...any) { l.put("W "+format, v) }
func (l quietLog) Errorf(format string, v ...any)   { l.put("E "+format, v) }

// member is one node of a cluster in this process, with sockets and files of its own.
type member struct {
	*node.Handle
	cfg    node.Config
	client *admin.Client
}

// bunch is a site with a cluster of nodes.
type bunch struct {
	*site
	dir   string
	seeds []string
	nodes map[string]*member
}

func newBunch(t *testing.T) *bunch {
	b := &bunch{site: newSite(t), dir: t.TempDir(), nodes: make(map[string]*member)}
	b.writeCRL()
	if err := os.WriteFile(filepath.Join(b.dir, "ca.pem"), b.ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bunch) writeCRL() {
	b.t.Helper()
	list, err := b.ca.CRL()
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "crl.pem"), list, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bunch) trustOf(name string) node.Trust {
	b.t.Helper()
	id, err := trust.NewIdentity(b.identity(name).Certificate)
	if err != nil {
		b.t.Fatal(err)
	}
	authority, err := trust.Open(filepath.Join(b.dir, "ca.pem"), filepath.Join(b.dir, "crl.pem"))
	if err != nil {
		b.t.Fatal(err)
	}
	return node.Trust{Identity: id, Authority: authority}
}

// freePort is one that was free a moment ago, for UDP and TCP.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// node is the configuration of a node of the cluster in a datacenter.
func (b *bunch) node(name, dc string, change func(*topology.Topology)) node.Config {
	b.t.Helper()
	cfg := b.config(name, filepath.Join(b.dir, name), change)
	cfg.Log = newQuietLog(b.t)
	bind := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(b.t))
	b.seeds = append(b.seeds, bind.String())
	cfg.Cluster = &node.Cluster{
		Pool: name, Name: name + ".example.net", Release: "test", Datacenter: dc,
		Gossip: &gossip.Config{Bind: bind, Profile: gossip.Local}, Trust: b.trustOf(name + ".example.net"),
		Policy: cluster.Policy{
			Join:    slices.Clone(b.seeds),
			Signers: func(s string) bool { return strings.HasPrefix(s, "ns") },
			Admit:   func(s string) bool { return strings.HasSuffix(s, ".example.net") },
		},
		DNS:   []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:53")},
		Admin: node.Admin{Addresses: []string{"unix://" + filepath.Join(b.dir, name+".sock")}},
	}
	return cfg
}

func (b *bunch) begin(name string, cfg node.Config) *member {
	b.t.Helper()
	h, err := node.Acquire(cfg, name)
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := admin.NewClient(cfg.Cluster.Admin.Addresses[0], admin.ClientOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	m := &member{h, cfg, c}
	b.nodes[name] = m
	b.t.Cleanup(func() { c.Close(); h.Release() })
	return m
}

// meet waits until every node has fresh reports of all.
func (b *bunch) meet() {
	b.t.Helper()
	b.eventually("all nodes meet", func() bool {
		for _, m := range b.nodes {
			s := b.status(m)
			if len(s.Nodes) != len(b.nodes) || !s.Agree || slices.ContainsFunc(s.Nodes, func(n admin.Node) bool { return n.State != "alive" }) {
				return false
			}
		}
		return true
	})
}

func (b *bunch) status(m *member) admin.Status {
	b.t.Helper()
	s, err := m.client.Status(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// eventually polls the API, which has no other way to tell than its event stream.
func (b *bunch) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(end) {
			for name, m := range b.nodes {
				b.t.Logf("%s: dc1 %s, dc2 %s, %+v", name, tiersOf(m.Node, "dc1.example.net."), tiersOf(m.Node, "dc2.example.net."), b.status(m))
			}
			b.t.Fatalf("never: %s", what)
		}
	}
}

func cname(n *node.Node) string {
	return n.Snapshot().Answer("puppet-camaster.example.net.", dns.TypeCNAME).Answer[0].(*dns.CNAME).Target
}

func (b *bunch) set(m *member, to string, force bool) (admin.Result, error) {
	current, err := m.client.Camaster(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return m.client.SetCamaster(context.Background(), admin.SetCamaster{Host: to, Reason: "drill", Expect: current.Version, Force: force})
}

func TestTheCamasterMovesEverywhere(t *testing.T) {
	b := newBunch(t)
	one := b.begin("ns1", b.node("ns1", "dc1", nil))
	two := b.begin("ns2", b.node("ns2", "dc2", nil))
	b.meet()
	r, err := b.set(one, "m2.example.net", false)
	if err != nil || r.Acked != 2 || r.Of != 2 || !r.Met || r.Write.From != "m1.example.net" || r.Write.To != "m2.example.net" {
		t.Fatalf("%+v, %v", r, err)
	}
	b.eventually("both answer m2", func() bool { return cname(one.Node) == "m2.example.net." && cname(two.Node) == "m2.example.net." })
	b.meet()
	s := b.status(two)
	if s.Camaster.Host != "m2.example.net" || s.Camaster.Version != "0.1.ns1.example.net" || s.Camaster.Reason != "drill" || !strings.HasPrefix(s.Camaster.Actor, "local:") {
		t.Errorf("%+v", s.Camaster)
	}
	// Equal content has equal serials.
	b.eventually("serials are equal", func() bool {
		return one.Snapshot().Zones["example.net."].Serial == two.Snapshot().Zones["example.net."].Serial
	})
	// Both end; the flip is there when they start again, in the first answer.
	for _, m := range b.nodes {
		m.Release()
	}
	for _, name := range []string{"ns1", "ns2"} {
		if m := b.begin(name, b.nodes[name].cfg); cname(m.Node) != "m2.example.net." {
			t.Errorf("%s begins with %s", name, cname(m.Node))
		}
	}
}

func TestSafetyRules(t *testing.T) {
	b := newBunch(t)
	m := b.begin("ns1", b.node("ns1", "dc1", func(top *topology.Topology) {
		top.Masters[1].CA = false
	}))
	b.eventually("both are observed", func() bool { return m.Ready() })
	refused := func(to string, rule string) {
		t.Helper()
		_, err := b.set(m, to, false)
		var f *admin.Fault
		if !errors.As(err, &f) || f.Status != 409 && f.Status != 404 || !strings.Contains(strings.Join(append(f.Rules, f.Detail), "\n"), rule) {
			t.Errorf("camaster set %s: %v (%+v), want a refusal for %q", to, err, f, rule)
		}
	}
	refused("m2.example.net", "not CA-capable")
	refused("m9.example.net", "is no master: the masters are m1.example.net, m2.example.net")
	if _, err := m.client.Drain(context.Background(), "m1.example.net", admin.SetDrain{Reason: "kernel"}); err != nil {
		t.Fatal(err)
	}
	refused("m1.example.net", "is drained by local:")
	if _, err := m.client.Undrain(context.Background(), "m1.example.net", ""); err != nil {
		t.Fatal(err)
	}
	b.eventually("m1 is first again", func() bool { return tiers(m.Node) == "m1@10 m2@20" })
	addr := b.masters[0].Addr()
	b.masters[0].Close()
	b.eventually("m1 is down", func() bool { return tiers(m.Node) == "m2@20 m1@110" })
	refused("m1.example.net", "m1.example.net is down: ")
	if r, err := b.set(m, "m1.example.net", true); err != nil || !r.Write.Forced || r.Write.Version != "1.1.ns1.example.net" {
		t.Errorf("%+v, %v", r, err)
	}
	b.start(0, addr.String())
	stale := admin.SetCamaster{Host: "m1.example.net", Reason: "drill", Expect: "0"}
	b.eventually("m1 is up", func() bool { return tiers(m.Node) == "m1@10 m2@20" })
	var f *admin.Fault
	if _, err := m.client.SetCamaster(context.Background(), stale); !errors.As(err, &f) || f.Type != "version-conflict" || f.Current == nil || f.Current.Version != "1.1.ns1.example.net" {
		t.Errorf("%v %+v", err, f)
	}
}

func TestTheCertificateOfTheNextCamasterMustFit(t *testing.T) {
	b := newBunch(t)
	m := b.begin("ns1", b.node("ns1", "dc1", func(top *topology.Topology) { top.CATarget = topology.CATargetCamaster }))
	b.eventually("both are observed", func() bool { return m.Ready() })
	_, err := b.set(m, "m2.example.net", false)
	var f *admin.Fault
	if !errors.As(err, &f) || !strings.Contains(strings.Join(f.Rules, ""), "valid for puppet-camaster.example.net") {
		t.Errorf("%v %+v", err, f)
	}
}

// Drained it is listed last on every node, and is back by itself.
func TestADrainEndsByItself(t *testing.T) {
	b := newBunch(t)
	one := b.begin("ns1", b.node("ns1", "dc1", nil))
	two := b.begin("ns2", b.node("ns2", "dc2", nil))
	b.meet()
	begin := time.Now()
	if _, err := one.client.Drain(context.Background(), "m1.example.net", admin.SetDrain{Reason: "kernel", For: "2s"}); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is last on both", func() bool { return tiers(one.Node) == "m2@20 m1@110" && tiers(two.Node) == "m2@20 m1@110" })
	t.Logf("last on both after %v", time.Since(begin))
	d := b.status(two).Masters[0].Drain
	if d == nil || d.Reason != "kernel" || d.Until.Sub(begin) < time.Second {
		t.Errorf("ns2 shows the drain as %+v", d)
	}
	b.eventually("it is back on both", func() bool { return tiers(one.Node) == "m1@10 m2@20" && tiers(two.Node) == "m1@10 m2@20" })
	if d := time.Since(begin); d < 2*time.Second {
		t.Errorf("it was back after %v", d)
	}
}

// Datacenter 1 does not reach datacenter 2's master and the reverse: each lists its
// own first and the other as down, for its own agents; and both nodes say the same
// of both.
func TestEachDatacenterSeesItsOwn(t *testing.T) {
	b := newBunch(t)
	cut := func(cfg node.Config, i int) node.Config {
		cfg.Probe.Targets[i].Port = 1 // nobody is there
		return cfg
	}
	one := b.begin("ns1", cut(b.node("ns1", "dc1", nil), 1))
	two := b.begin("ns2", cut(b.node("ns2", "dc2", nil), 0))
	for _, m := range []*member{one, two} {
		b.eventually("each sees its own", func() bool {
			return tiersOf(m.Node, "dc1.example.net.") == "m1@10 m2@120" && tiersOf(m.Node, "dc2.example.net.") == "m2@10 m1@120"
		})
	}
	s := b.status(one)
	for i, want := range []string{"dc1 up, dc2 down", "dc1 down, dc2 up"} {
		var got []string
		for _, v := range s.Masters[i].Verdicts {
			got = append(got, v.Datacenter+map[bool]string{true: " down", false: " up"}[v.Down])
		}
		if strings.Join(got, ", ") != want || len(s.Masters[i].Evidence) != 2 {
			t.Errorf("%s: %v, %+v", s.Masters[i].Host, got, s.Masters[i].Evidence)
		}
	}
}

// A node that reaches nothing does not count, and says so.
func TestAnIsolatedNodeDistrustsItself(t *testing.T) {
	b := newBunch(t)
	cfg := b.node("ns1", "dc1", nil)
	for i := range cfg.Probe.Targets {
		cfg.Probe.Targets[i].Port = 1
	}
	one := b.begin("ns1", cfg)
	b.eventually("alone it believes itself", func() bool { return tiers(one.Node) == "m1@110 m2@120" })
	two := b.begin("ns2", b.node("ns2", "dc1", nil))
	for _, m := range []*member{one, two} {
		b.eventually("the other counts", func() bool { return tiers(m.Node) == "m1@10 m2@20" })
	}
	b.eventually("it is told", func() bool {
		s := b.status(two)
		return slices.ContainsFunc(s.Problems, func(p admin.Problem) bool {
			return p.Subject == "ns1.example.net" && strings.Contains(p.Text, "reaches no master")
		})
	})
}

// What is wrong on one node reaches the status of all, and leaves it, also while no
// master changes.
func TestProblemsComeAndGo(t *testing.T) {
	b := newBunch(t)
	b.begin("ns1", b.node("ns1", "dc1", nil))
	two := b.begin("ns2", b.node("ns2", "dc2", nil))
	b.meet()
	told := func() int {
		n := 0
		for _, p := range b.status(two).Problems {
			if strings.Contains(p.Text, "the CRL known last is used") && p.Severity == "error" {
				n++
			}
		}
		return n
	}
	crl := filepath.Join(b.dir, "crl.pem")
	good, err := os.ReadFile(crl)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(crl, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.eventually("ns2 tells of both nodes' CRL", func() bool { return told() == 2 })
	if err := os.WriteFile(crl, good, 0o600); err != nil {
		t.Fatal(err)
	}
	b.eventually("all is well again", func() bool { return told() == 0 })
}

// A node whose certificate is revoked says so before somebody needs it.
func TestARevokedNodeSaysSo(t *testing.T) {
	b := newBunch(t)
	one := b.begin("ns1", b.node("ns1", "dc1", nil))
	b.ca.Revoke(one.cfg.Cluster.Trust.Identity.Leaf.SerialNumber)
	b.writeCRL()
	b.eventually("it is a problem", func() bool {
		return slices.ContainsFunc(b.status(one).Problems, func(p admin.Problem) bool {
			return strings.Contains(p.Text, "no other node accepts what this one says")
		})
	})
}

// The pool lives on when a reload replaces the runtime, and nobody else notices.
func TestAReloadKeepsTheMembership(t *testing.T) {
	b := newBunch(t)
	one := b.begin("ns1", b.node("ns1", "dc1", nil))
	two := b.begin("ns2", b.node("ns2", "dc2", nil))
	b.meet()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := make(chan admin.Event, 1000)
	go two.client.Events(ctx, 0, func(e admin.Event) error { events <- e; return nil })
	for i := range 5 {
		cfg := one.cfg
		cfg.Key = fmt.Sprint("ns1 ", i)
		c := *cfg.Cluster
		cfg.Cluster = &c
		next, err := node.Acquire(cfg, fmt.Sprint("instance ", i))
		if err != nil {
			t.Fatal(err)
		}
		one.Release()
		one = &member{next, cfg, one.client}
		b.nodes["ns1"] = one
		if _, err := b.set(one, []string{"m2.example.net", "m1.example.net"}[i%2], false); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(one.Release)
	b.meet()
	for {
		select {
		case e := <-events:
			if e.Kind == "member" && e.Subject == "ns1.example.net" && !strings.Contains(e.Text, "alive") {
				t.Errorf("ns2 saw: %s", e.Text)
			}
			continue
		default:
		}
		break
	}
	if n := b.status(two).Nodes[0]; n.Name != "ns1.example.net" || time.Since(n.Since) < 0 || n.State != "alive" {
		t.Errorf("%+v", n)
	}
	one.Release()
	b.eventually("it has left", func() bool {
		s := b.status(two)
		return s.Nodes[0].State == "left"
	})
}

// A reload to something that cannot start goes back to what was.
func TestAReloadThatFailsGoesBack(t *testing.T) {
	b := newBunch(t)
	one := b.begin("ns1", b.node("ns1", "dc1", nil))
	b.eventually("both are observed", func() bool { return one.Ready() })
	bad := one.cfg
	bad.Key = "bad"
	c := *bad.Cluster
	bad.Cluster = &c
	c.Pool, c.KeyFile = "bad", filepath.Join(b.dir, "absent")
	if _, err := node.Acquire(bad, "next"); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Fatalf("err %v", err)
	}
	if _, err := b.set(one, "m2.example.net", false); err == nil {
		b.eventually("it goes on", func() bool { return cname(one.Node) == "m2.example.net." })
	} else {
		t.Error(err)
	}
	// Also one that started and was given up by another plugin's failure.
	good := one.cfg
	good.Key = "good"
	d := *good.Cluster
	good.Cluster = &d
	d.Admin.Addresses = []string{"unix://" + filepath.Join(b.dir, "other.sock")}
	h, err := node.Acquire(good, "next")
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
	b.status(one) // on the socket from before
	busy := one.cfg
	busy.Key = "busy"
	e := *busy.Cluster
	busy.Cluster = &e
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	e.Admin.Addresses = []string{"https://" + taken.Addr().String()}
	if _, err := node.Acquire(busy, "next"); err == nil || !strings.Contains(err.Error(), "has this port") {
		t.Errorf("an API at a taken address: %v", err)
	}
	b.status(one)
	alone := b.node("ns4", "dc2", nil)
	alone.Cluster.Admin = e.Admin
	for range 2 { // the first leaves nothing behind that the second would meet
		if _, err := node.Acquire(alone, "alone"); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("an API at a taken address: %v", err)
		}
	}
	two := b.node("ns2", "dc2", nil)
	two.Cluster.Gossip.Bind = one.cfg.Cluster.Gossip.Bind
	if _, err := node.Acquire(two, "ns1"); err == nil || !strings.Contains(err.Error(), "give each") {
		t.Errorf("two blocks of one server with one gossip address: %v", err)
	}
	two = b.node("ns3", "dc2", nil)
	two.State = one.cfg.State
	if _, err := node.Acquire(two, "ns1"); err == nil || !strings.Contains(err.Error(), "directory of its own") {
		t.Errorf("two clusters in one state directory: %v", err)
	}
}
