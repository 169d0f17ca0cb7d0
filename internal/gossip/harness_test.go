package gossip_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/gossip/gossiptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner is a Delegate that keeps what it gets, and a Logger.
type owner struct {
	hold chan struct{} // Received waits for it, unless nil

	mu       sync.Mutex
	received []string
	merged   []string
	state    []byte
	changes  int
	lines    []string
	wake     chan struct{} // closed at the next of all these
}

func newOwner() *owner { return &owner{wake: make(chan struct{})} }

func (o *owner) note(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	close(o.wake)
	o.wake = make(chan struct{})
}

func (o *owner) Received(b []byte) {
	if o.hold != nil {
		<-o.hold
	}
	o.note(func() { o.received = append(o.received, string(b)) })
}
func (o *owner) Merge(b []byte) { o.note(func() { o.merged = append(o.merged, string(b)) }) }
func (o *owner) Changed()       { o.note(func() { o.changes++ }) }
func (o *owner) State() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state
}

func (o *owner) log(level, format string, v ...any) {
	o.note(func() { o.lines = append(o.lines, level+" "+fmt.Sprintf(format, v...)) })
}
func (o *owner) Debugf(format string, v ...any)   {}
func (o *owner) Infof(format string, v ...any)    { o.log("info", format, v...) }
func (o *owner) Warningf(format string, v ...any) { o.log("warning", format, v...) }
func (o *owner) Errorf(format string, v ...any)   { o.log("error", format, v...) }

func (o *owner) logged(part string) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.lines {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

func (o *owner) got() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.received...)
}

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// eventually waits until f is true. Events wake it; what tells of itself in no
// event, such as a counter, is looked at every few milliseconds.
func eventually(t *testing.T, what string, o *owner, f func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		o.mu.Lock()
		wake := o.wake
		o.mu.Unlock()
		if f() {
			return
		}
		select {
		case <-wake:
		case <-look.C:
		case <-limit.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// member is a pool with its owner.
type member struct {
	*gossip.Pool
	*owner
}

func addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), gossip.DefaultPort)
}

func name(i int) string { return fmt.Sprintf("ns%d.example.net", i) }

// start begins a member over sockets on loopback, or as cfg says.
func start(t *testing.T, cfg gossip.Config) member {
	t.Helper()
	o, _ := cfg.Delegate.(*owner)
	if o == nil {
		o = newOwner()
	}
	cfg.Delegate, cfg.Log = o, o
	if !cfg.Bind.IsValid() {
		cfg.Bind = netip.MustParseAddrPort("127.0.0.1:0")
	}
	p, err := gossip.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return member{p, o}
}

// local is a fast configuration for sockets.
func local(i int, join ...string) gossip.Config {
	return gossip.Config{Name: name(i), Profile: gossip.Local, Join: join, RejoinEvery: 200 * time.Millisecond}
}

// onNetwork is one for a network in memory.
func onNetwork(n *gossiptest.Network, i int, join ...string) gossip.Config {
	return gossip.Config{Name: name(i), Transport: n.Transport(addr(i)), Join: join}
}

// alive returns the names of the living that m knows, itself among them.
func (m member) alive() (names []string) {
	for _, x := range m.Members() {
		if x.Status == gossip.Alive {
			names = append(names, x.Name)
		}
	}
	return names
}

func (m member) status(name string) string {
	for _, x := range m.Members() {
		if x.Name == name {
			return x.Status.String()
		}
	}
	return "unknown"
}

func together(t *testing.T, members ...member) {
	t.Helper()
	for _, m := range members {
		eventually(t, fmt.Sprintf("%s sees all %d", m.Self().Name, len(members)), m.owner, func() bool { return len(m.alive()) == len(members) })
	}
}
