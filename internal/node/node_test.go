package node_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/store"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/topology"
	"github.com/puppetsrv/puppetsrv/internal/zone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waiting for an event that must come.
const patience = 20 * time.Second

// site is two stub masters in two datacenters and how a node is told of them.
type site struct {
	t       *testing.T
	ca      *stub.CA
	masters [2]*stub.Master
	log     *logBook
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, log: &logBook{lines: make(chan string, 1000)}}
	var err error
	if s.ca, err = stub.NewCA("Puppet CA"); err != nil {
		t.Fatal(err)
	}
	s.start(0, "127.0.0.1:0")
	// On the same port, as a service name's stand-in has to be.
	s.start(1, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), s.masters[0].Addr().Port()).String())
	return s
}

func (s *site) identity(names ...string) *stub.Identity {
	s.t.Helper()
	id, err := s.ca.Issue(stub.IssueOptions{CommonName: names[0], DNSNames: names})
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func host(i int) string { return fmt.Sprintf("m%d.example.net", i+1) }

func (s *site) start(i int, addr string) {
	s.t.Helper()
	m, err := stub.NewMaster(addr, s.identity(host(i), "m1.dc1.example.net", "m2.dc2.example.net"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.masters[i] = m
	s.t.Cleanup(func() { m.Close() })
}

// config is a node's configuration; change may alter the topology.
func (s *site) config(key, state string, change func(*topology.Topology)) node.Config {
	s.t.Helper()
	top := &topology.Topology{
		Datacenters: []topology.Datacenter{{Name: "dc1", Domain: "dc1.example.net."}, {Name: "dc2", Domain: "dc2.example.net."}},
		Local:       10, Remote: 20, PuppetDBPort: 8081,
		CamasterName: "puppet-camaster.example.net.", Camaster: "m1.example.net.",
	}
	var targets []probe.Target
	for i, m := range s.masters {
		top.Masters = append(top.Masters, topology.Master{
			Host: host(i) + ".", Datacenter: top.Datacenters[i].Name, Port: m.Addr().Port(), Weight: 10, CA: true,
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)})},
			Service:   fmt.Sprintf("m%d.%s", i+1, top.Datacenters[i].Domain),
		})
	}
	if change != nil {
		change(top)
	}
	static, err := zone.Synthesize("example.net.", []string{"ns1.example.net."}, 5)
	if err != nil {
		s.t.Fatal(err)
	}
	plan, _, err := zone.NewPlan(top, 5, []zone.Static{static})
	if err != nil {
		s.t.Fatal(err)
	}
	for i, m := range s.masters {
		targets = append(targets, probe.Target{
			Subject: top.Masters[i].Host, Name: top.Target(&top.Masters[i]),
			Addresses: []netip.Addr{m.Addr().Addr()}, Port: m.Addr().Port(),
		})
	}
	return node.Config{
		Key: key, Name: "example.net.", Plan: plan, State: state, Log: s.log,
		Thresholds: health.Thresholds{Rise: 2, Fall: 2},
		Probe: &node.Probe{
			Check:    probe.Check{Observer: "ns1", TLS: &tls.Config{RootCAs: s.ca.Pool()}, Path: "/status/v1/simple"},
			Schedule: probe.Schedule{Interval: 200 * time.Millisecond, Timeout: 5 * time.Second, Concurrency: 4},
			Targets:  targets,
		},
	}
}

func (s *site) acquire(cfg node.Config) *node.Handle {
	s.t.Helper()
	h, err := node.Acquire(cfg, "test")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(h.Release)
	return h
}

// logBook keeps a log.
type logBook struct{ lines chan string }

func (l *logBook) put(level, format string, v []any) { l.lines <- level + fmt.Sprintf(format, v...) }

func (l *logBook) Infof(format string, v ...any)    { l.put("I ", format, v) }
func (l *logBook) Warningf(format string, v ...any) { l.put("W ", format, v) }
func (l *logBook) Errorf(format string, v ...any)   { l.put("E ", format, v) }

// await returns the next line that holds want.
func (s *site) await(want string) string {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line := <-s.log.lines:
			if strings.Contains(line, want) {
				return line
			}
		case <-timeout:
			s.t.Fatalf("nothing in the log says %q", want)
		}
	}
}

// tiers is what agents of dc1 see, as in "m1@10 m2@20".
func tiers(n *node.Node) string { return tiersOf(n, "dc1.example.net.") }

func tiersOf(n *node.Node, domain string) string {
	var out []string
	for _, rr := range n.Snapshot().Answer("_x-puppet._tcp."+domain, dns.TypeSRV).Answer {
		srv := rr.(*dns.SRV)
		out = append(out, fmt.Sprintf("%s@%d", strings.SplitN(srv.Target, ".", 2)[0], srv.Priority))
	}
	return strings.Join(out, " ")
}

// until calls f after every published change, and now and then, until it is true.
func (s *site) until(n *node.Node, what string, f func() bool) {
	s.t.Helper()
	changed := make(chan struct{}, 1)
	cancel := n.Subscribe(func([]string) {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	defer cancel()
	timeout := time.After(patience)
	for !f() {
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // evidence alone publishes nothing
		case <-timeout:
			s.t.Fatalf("never: %s; answers are %q", what, tiers(n))
		}
	}
}

func (s *site) untilTiers(n *node.Node, want string) {
	s.t.Helper()
	s.until(n, want, func() bool { return tiers(n) == want })
}

func (s *site) untilReady(n *node.Node) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !n.Ready() {
		select {
		case <-ctx.Done():
			s.t.Fatal("never ready")
		case <-time.After(time.Millisecond):
		}
	}
}

func serial(n *node.Node) uint32 { return n.Snapshot().Zones["example.net."].Serial }

func TestAMasterDiesAndReturns(t *testing.T) {
	s := newSite(t)
	h := s.acquire(s.config("a", t.TempDir(), nil))
	if got := tiers(h.Node); got != "m1@10 m2@20" {
		t.Fatalf("before any probe: %q", got)
	}
	s.untilReady(h.Node)
	before := serial(h.Node)
	addr := s.masters[0].Addr().String()
	s.masters[0].Close()
	s.untilTiers(h.Node, "m2@20 m1@110")
	if got := tiersOf(h.Node, "dc2.example.net."); got != "m2@10 m1@120" {
		t.Errorf("in dc2: %q", got)
	}
	line := s.await("m1.example.net. is down")
	if !strings.HasPrefix(line, "W ") || !strings.Contains(line, "refused") {
		t.Errorf("log line %q", line)
	}
	if !store.Newer(serial(h.Node), before) {
		t.Errorf("serial %d after %d", serial(h.Node), before)
	}
	s.start(0, addr)
	s.untilTiers(h.Node, "m1@10 m2@20")
	s.await("m1.example.net. is up again after")
	if !store.Newer(serial(h.Node), before+1) {
		t.Errorf("serial %d, after two changes from %d", serial(h.Node), before)
	}
	if len(s.log.lines) > 0 {
		t.Errorf("more than a line for a change: %q", <-s.log.lines)
	}
	st := h.Status()
	if m := st.Masters[0]; m.Verdict.Down || !m.Observed || m.Age < 0 || m.Certificate == nil || st.Durable != nil {
		t.Errorf("status %+v", st)
	}
}

func TestACertificateThatFailsIsLeftOut(t *testing.T) {
	s := newSite(t)
	h := s.acquire(s.config("a", "", nil))
	s.masters[0].SetIdentity(s.identity("other.example.net"))
	s.untilTiers(h.Node, "m2@20")
	if line := s.await("left out"); !strings.HasPrefix(line, "E ") || !strings.Contains(line, "other.example.net") {
		t.Errorf("log line %q", line)
	}
	ca := h.Snapshot().Answer("_x-puppet-ca._tcp.dc1.example.net.", dns.TypeSRV).Answer
	if len(ca) != 1 || ca[0].(*dns.SRV).Target != "m1.example.net." {
		t.Errorf("_x-puppet-ca is %v: it is never empty", ca)
	}
	s.masters[0].SetIdentity(s.identity(host(0)))
	s.untilTiers(h.Node, "m1@10 m2@20")
}

func TestServiceNamesMoveToAStandIn(t *testing.T) {
	s := newSite(t)
	cfg := s.config("a", "", func(top *topology.Topology) { top.Targets = topology.TargetsService })
	h := s.acquire(cfg)
	address := func() string {
		a := h.Snapshot().Answer("m1.dc1.example.net.", dns.TypeA).Answer
		if len(a) != 1 {
			return ""
		}
		return a[0].(*dns.A).A.String()
	}
	s.untilReady(h.Node)
	if got := address(); got != "127.0.0.1" {
		t.Fatalf("m1's service name is at %s", got)
	}
	addr := s.masters[0].Addr().String()
	s.masters[0].Close()
	s.until(h.Node, "m1's service name at m2", func() bool { return address() == "127.0.0.2" })
	s.start(0, addr)
	s.until(h.Node, "m1's service name at m1", func() bool { return address() == "127.0.0.1" })
	// A certificate without the name makes nobody's stand-in.
	s.masters[1].SetIdentity(s.identity("m2.dc2.example.net"))
	s.until(h.Node, "the new certificate", func() bool {
		c := h.Status().Masters[1].Certificate
		return c != nil && len(c.Names) == 1
	})
	s.masters[0].Close()
	s.untilTiers(h.Node, "m2@20 m1@110")
	if got := address(); got != "127.0.0.1" {
		t.Errorf("a master without the name is the stand-in: %s", got)
	}
}

// A zone file that gives a master another address has it probed there.
func TestAChangedFileMovesTheProbes(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "zone")
	cfg := s.config("a", "", nil)
	moved := s.config("a", "", nil)
	cfg.Probe.Targets[0].Port = 1 // nobody is there
	cfg.Watch = &node.Watch{Files: []string{path}, Stamp: node.Stamp([]string{path}), Load: func([]topology.Master) (*zone.Plan, []probe.Target, error) {
		return moved.Plan, moved.Probe.Targets, nil
	}}
	h := s.acquire(cfg)
	s.untilTiers(h.Node, "m2@20 m1@110")
	if err := os.WriteFile(path, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.await("were read again")
	s.untilTiers(h.Node, "m1@10 m2@20")
}

// Reading hangs, as on a dead NFS: neither verdicts nor the end wait for it.
func TestAZoneFileThatHangs(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "zone")
	cfg := s.config("a", "", nil)
	reading, hang := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(hang) })
	cfg.Watch = &node.Watch{Files: []string{path}, Stamp: node.Stamp([]string{path}), Load: func([]topology.Master) (*zone.Plan, []probe.Target, error) {
		close(reading)
		<-hang
		return cfg.Plan, cfg.Probe.Targets, nil
	}}
	h := s.acquire(cfg)
	if err := os.WriteFile(path, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	<-reading
	s.masters[0].Close()
	s.untilTiers(h.Node, "m2@20 m1@110")
	h.Release()
	if len(node.All()) != 0 {
		t.Error("the runtime has not ended")
	}
}

func TestTheSameConfigurationIsTheSameRuntime(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	a := s.acquire(s.config("a", dir, nil))
	b := s.acquire(s.config("a", dir, nil))
	if a.Node != b.Node || len(node.All()) != 1 {
		t.Fatal("two runtimes for one configuration")
	}
	a.Release()
	a.Release() // twice is once
	s.masters[0].Close()
	s.untilTiers(b.Node, "m2@20 m1@110")
	b.Release()
	if len(node.All()) != 0 {
		t.Error("the runtime outlives its last holder")
	}
	if got := tiers(a.Node); got != "m2@20 m1@110" {
		t.Errorf("a released runtime answers %q: queries still come while servers stop", got)
	}
}

func TestAChangedConfigurationInheritsTheEvidence(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	a := s.acquire(s.config("a", dir, nil))
	s.masters[0].Close()
	s.untilTiers(a.Node, "m2@20 m1@110")
	before := serial(a.Node)
	b := s.acquire(s.config("b", dir, func(top *topology.Topology) { top.Remote = 30 }))
	if got := tiers(b.Node); got != "m2@30 m1@110" {
		t.Errorf("the new runtime begins with %q: a dead master was listed first again", got)
	}
	if !store.Newer(serial(b.Node), before) {
		t.Errorf("serial %d after %d", serial(b.Node), before)
	}
}

// An instance that failed to start is gone without having released anything.
func TestSweepReleasesWhatTheGoneHeld(t *testing.T) {
	s := newSite(t)
	a := s.acquire(s.config("a", "", nil))
	for _, key := range []string{"a", "b", "b"} {
		h, err := node.Acquire(s.config(key, "", nil), "gone")
		if err != nil {
			t.Fatal(err)
		}
		h.Subscribe(func([]string) { t.Error("the gone are told of a change") })
	}
	for range 2 { // once for each server block
		node.Sweep(func(owner any) bool { return owner != "gone" })
	}
	if all := node.All(); len(all) != 1 || all[0] != a.Node {
		t.Fatalf("%d runtimes are left", len(all))
	}
	s.masters[0].Close()
	s.untilTiers(a.Node, "m2@20 m1@110")
}

// Without a state directory a zone's serial still goes on over a reload.
func TestSerialsOverAReloadInMemory(t *testing.T) {
	s := newSite(t)
	a := s.acquire(s.config("a", "", nil))
	first := serial(a.Node)
	b := s.acquire(s.config("b", "", func(top *topology.Topology) { top.Remote = 30 }))
	a.Release()
	if !store.Newer(serial(b.Node), first) {
		t.Errorf("the content is another and the serial went from %d to %d", first, serial(b.Node))
	}
}

// While two runtimes overlap the old one may publish after the new one did: the
// new one's serial is the newest in the end.
func TestTheRuntimeThatGoesOnHasTheNewestSerial(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	a := s.acquire(s.config("a", dir, nil))
	b := s.acquire(s.config("b", dir, func(top *topology.Topology) { top.Remote = 30 }))
	s.masters[0].Close()
	s.untilTiers(a.Node, "m2@20 m1@110")
	s.untilTiers(b.Node, "m2@30 m1@110")
	most := max(serial(a.Node), serial(b.Node))
	a.Release()
	s.until(b.Node, "the newest serial", func() bool { return serial(b.Node) >= most })
	h, err := node.Acquire(s.config("b", dir, func(top *topology.Topology) { top.Remote = 30 }), "test")
	if err != nil {
		t.Fatal(err)
	}
	h.Release()
}

func TestSerialsOverRestarts(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	run := func(change func(*topology.Topology)) uint32 {
		h, err := node.Acquire(s.config("a", dir, change), "test")
		if err != nil {
			t.Fatal(err)
		}
		defer h.Release()
		return serial(h.Node)
	}
	first := run(nil)
	if again := run(nil); again != first {
		t.Errorf("the content is the same and the serial went from %d to %d", first, again)
	}
	if other := run(func(top *topology.Topology) { top.Remote = 30 }); other != first+1 {
		t.Errorf("the content is another and the serial went from %d to %d", first, other)
	}
}

func TestADirectoryThatCannotBeUsedStopsNoAnswer(t *testing.T) {
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := s.acquire(s.config("a", filepath.Join(file, "state"), nil))
	s.await("Nothing is durable, answers go on; repair")
	if h.Status().Durable == nil {
		t.Error("the status does not say so")
	}
	s.masters[0].Close()
	s.untilTiers(h.Node, "m2@20 m1@110")
}

func TestADamagedStateIsNotReadyButAnswers(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "serials.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := s.acquire(s.config("a", dir, nil))
	if line := s.await("serials.json"); !strings.HasPrefix(line, "E ") {
		t.Errorf("log line %q", line)
	}
	s.masters[0].Close()
	s.untilTiers(h.Node, "m2@20 m1@110")
	if h.Ready() {
		t.Error("ready")
	}
	if got, _ := os.ReadFile(path); string(got) != "{" {
		t.Errorf("the damaged file is now %q", got)
	}
}

func TestADirectoryOfAnotherProcessIsRefused(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	lock, err := store.LockDir(dir) // flock is per open file: as good as another process
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := node.Acquire(s.config("a", dir, nil), "test"); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("err %v", err)
	}
	if len(node.All()) != 0 {
		t.Error("a runtime is left")
	}
}

func TestConcurrentHoldersAndReaders(t *testing.T) {
	s := newSite(t)
	var wg sync.WaitGroup
	cfgs := []node.Config{s.config("a", "", nil), s.config("b", "", nil)}
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				h, err := node.Acquire(cfgs[i%2], "test")
				if err != nil {
					t.Error(err)
					return
				}
				_ = tiers(h.Node)
				_ = h.Status()
				h.Release()
			}
		})
	}
	wg.Wait()
	if len(node.All()) != 0 {
		t.Error("runtimes are left")
	}
}
