package gossip

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

type ear struct{ heard chan string }

func (e ear) Received(b []byte) { e.heard <- string(b) }
func (e ear) State() []byte     { return nil }
func (e ear) Merge(b []byte)    { e.heard <- "state " + string(b) }
func (e ear) Changed()          {}

func alone(t *testing.T) (*Pool, ear) {
	t.Helper()
	e := ear{make(chan string, 10)}
	p, err := Start(Config{Name: "ns1.example.net", Bind: netip.MustParseAddrPort("127.0.0.1:0"), Profile: Local, Delegate: e})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p, e
}

// What a holder of the key could send, and no member does.
func TestAnImpossibleMemberIsRefused(t *testing.T) {
	p, _ := alone(t)
	good := memberlist.Node{Name: "ns2.example.net", Addr: net.IP{127, 0, 0, 2}, Port: 7946}
	if err := (callbacks{p}).NotifyAlive(&good); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*memberlist.Node){
		"no name":      func(n *memberlist.Node) { n.Name = "" },
		"a long name":  func(n *memberlist.Node) { n.Name = strings.Repeat("a", 254) },
		"a newline":    func(n *memberlist.Node) { n.Name = "ns2\n" },
		"no address":   func(n *memberlist.Node) { n.Addr = nil },
		"five bytes":   func(n *memberlist.Node) { n.Addr = net.IP{1, 2, 3, 4, 5} },
		"the wildcard": func(n *memberlist.Node) { n.Addr = net.IPv4zero },
		"no port":      func(n *memberlist.Node) { n.Port = 0 },
		"metadata":     func(n *memberlist.Node) { n.Meta = make([]byte, 513) },
	} {
		bad := good
		change(&bad)
		if err := (callbacks{p}).NotifyAlive(&bad); err == nil {
			t.Errorf("%s: admitted", what)
		}
	}
	if n := p.Stats().Refused[RefusedInvalid]; n != 8 {
		t.Errorf("%d counted", n)
	}
}

func TestMembersAreBounded(t *testing.T) {
	p, _ := alone(t)
	n := memberlist.Node{Addr: net.IP{127, 0, 0, 2}, Port: 7946}
	for i := range MaxMembers - 1 {
		n.Name = fmt.Sprint("m", i)
		p.members.set(&n, Alive)
	}
	n.Name = "one-more"
	if err := (callbacks{p}).NotifyAlive(&n); err == nil {
		t.Error("admitted")
	}
	n.Name = "m1"
	if err := (callbacks{p}).NotifyAlive(&n); err != nil {
		t.Errorf("a known one: %v", err)
	}
	if n := p.Stats().Refused[RefusedTooMany]; n != 1 {
		t.Errorf("%d counted", n)
	}
	for i := range MaxMembers - 1 {
		n.Name = fmt.Sprint("m", i)
		p.members.set(&n, Dead)
	}
	p.members.expire()
	if n := p.Stats().Dead; n != maxGone {
		t.Errorf("%d dead are remembered", n)
	}
}

// memberlist may use its bytes again as soon as the call has returned.
func TestWhatArrivesIsCopied(t *testing.T) {
	p, e := alone(t)
	for want, call := range map[string]func(b []byte){
		"abc":       func(b []byte) { (callbacks{p}).NotifyMsg(b) },
		"state abc": func(b []byte) { (callbacks{p}).MergeRemoteState(b, false) },
	} {
		b := []byte("abc")
		if want == "abc" {
			b = frame(frameMessage, b)
		}
		p.inbox.mu.Lock() // so that it cannot be delivered before it is spoilt
		done := make(chan struct{})
		go func() { call(b); clear(b); close(done) }()
		p.inbox.mu.Unlock()
		<-done
		if got := <-e.heard; got != want {
			t.Errorf("%q arrived, %q was sent", got, want)
		}
	}
	(callbacks{p}).NotifyMsg(nil)
	(callbacks{p}).NotifyMsg([]byte{200, 1})             // of a newer release
	(callbacks{p}).NotifyMsg(make([]byte, MaxMessage+2)) // over the limit
	(callbacks{p}).MergeRemoteState(make([]byte, MaxState+1), true)
	if s := p.Stats(); s.OversizedMessage != 1 || s.OversizedState != 1 {
		t.Errorf("%+v", s)
	}
}

type lines []string

func (l *lines) Debugf(f string, v ...any)   { *l = append(*l, "debug "+fmt.Sprintf(f, v...)) }
func (l *lines) Infof(f string, v ...any)    { *l = append(*l, "info "+fmt.Sprintf(f, v...)) }
func (l *lines) Warningf(f string, v ...any) { *l = append(*l, "warning "+fmt.Sprintf(f, v...)) }
func (l *lines) Errorf(f string, v ...any)   { *l = append(*l, "error "+fmt.Sprintf(f, v...)) }

func TestMemberlistsLinesKeepTheirLevels(t *testing.T) {
	var got lines
	w := newLogWriter(&got, &counters{})
	for _, l := range []string{
		"[DEBUG] memberlist: a", "[INFO] memberlist: b", "[WARN] memberlist: c", "[ERR] memberlist: d",
		"[ERROR] memberlist: e", "Err: f", "[WARN] memberlist: ignoring alive message for 'x'", "", "[",
	} {
		fmt.Fprintln(w, l)
	}
	want := "debug memberlist: a|info memberlist: b|warning memberlist: c|error memberlist: d|error memberlist: e|error memberlist: Err: f"
	if s := strings.Join(got, "|"); !strings.HasPrefix(s, want) || strings.Contains(s, "alive message") {
		t.Errorf("%s", s)
	}
}

func TestALimiterIsBounded(t *testing.T) {
	l := newLimiter(time.Hour)
	passed := 0
	for i := range 2 * maxLimited {
		if l.allow(fmt.Sprint(i)) {
			passed++
		}
		if l.allow(fmt.Sprint(i)) {
			t.Fatal("twice")
		}
	}
	if passed != maxLimited || len(l.last) != maxLimited {
		t.Errorf("%d passed, %d kept", passed, len(l.last))
	}
}
