package probe_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "m1.example.net."

// rig is a CA and one stub master.
type rig struct {
	t      *testing.T
	ca     *stub.CA
	master *stub.Master
	check  *probe.Check
}

func newRig(t *testing.T) *rig {
	t.Helper()
	ca, err := stub.NewCA("Puppet CA")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ca: ca}
	r.master, err = stub.NewMaster("127.0.0.1:0", r.identity(stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{"m1.example.net"}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.master.Close() })
	r.check = &probe.Check{Observer: "ns1", TLS: &tls.Config{RootCAs: ca.Pool()}, Path: "/status/v1/simple"}
	return r
}

func (r *rig) identity(o stub.IssueOptions) *stub.Identity {
	r.t.Helper()
	id, err := r.ca.Issue(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) target() probe.Target {
	return probe.Target{Subject: name, Name: name, Addresses: []netip.Addr{r.master.Addr().Addr()}, Port: r.master.Addr().Port()}
}

func (r *rig) look(target probe.Target, timeout time.Duration) health.Observation {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	o, conn := r.check.Do(ctx, target)
	if (conn != nil) != o.OK() {
		r.t.Errorf("reason %q with connection %v", o.Reason, conn)
	}
	if conn != nil {
		conn.Close()
	}
	return o
}

func TestASuccessTellsAllThatIsKnown(t *testing.T) {
	r := newRig(t)
	o := r.look(r.target(), 5*time.Second)
	if !o.OK() || o.Observer != "ns1" || o.Subject != name || o.Duration <= 0 || o.Time.IsZero() {
		t.Errorf("observation %+v", o)
	}
	if !o.Certificate.ValidFor(name, time.Now()) || o.Certificate.ValidFor("m2.example.net", time.Now()) {
		t.Errorf("certificate %+v", o.Certificate)
	}
}

func TestReasons(t *testing.T) {
	r := newRig(t)
	foreign, err := stub.NewCA("Puppet CA") // of the same name
	if err != nil {
		t.Fatal(err)
	}
	alien, err := foreign.Issue(stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{"m1.example.net"}})
	if err != nil {
		t.Fatal(err)
	}
	good := r.identity(stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{"m1.example.net"}})
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	garbage := listen(t, func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-nope\r\n") })
	hangup := listen(t, func(c net.Conn) {})

	r.check.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		switch host {
		case "m1.found.example":
			return []netip.Addr{r.master.Addr().Addr()}, nil
		case "m1.empty.example":
			return nil, nil
		}
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}

	tests := []struct {
		name    string
		arrange func()
		target  func() probe.Target
		reason  health.Reason
		detail  string
	}{
		{"running", func() { r.master.SetStatus(200, "running") }, r.target, health.ReasonOK, ""},
		{"running with a newline", func() { r.master.SetStatus(200, "running\n") }, r.target, health.ReasonOK, ""},
		{"starting", func() { r.master.SetStatus(503, "starting") }, r.target, health.ReasonStatus, `503 "starting"`},
		{"200 but not running", func() { r.master.SetStatus(200, "error") }, r.target, health.ReasonStatus, `200 "error"`},
		{"a foreign server", func() { r.master.SetStatus(404, strings.Repeat("x", 10000)) }, r.target, health.ReasonStatus, "404"},
		{"wrong name", func() {
			r.master.SetIdentity(r.identity(stub.IssueOptions{CommonName: "m2.example.net", DNSNames: []string{"m2.example.net"}}))
		}, r.target, health.ReasonCertificate, "not valid for m1.example.net, only for m2.example.net"},
		{"expired", func() {
			r.master.SetIdentity(r.identity(stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{"m1.example.net"},
				NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}))
		}, r.target, health.ReasonCertificate, "expired"},
		{"foreign CA", func() { r.master.SetIdentity(alien) }, r.target, health.ReasonCertificate, "unknown authority"},
		{"no DNS name but the common name, as OpenSSL takes it", func() {
			r.master.SetIdentity(r.identity(stub.IssueOptions{CommonName: "m1.example.net"}))
			r.master.SetStatus(200, "running")
		}, r.target, health.ReasonOK, ""},
		{"well again", func() { r.master.SetIdentity(good) }, r.target, health.ReasonOK, ""},
		{"silent", nil, func() probe.Target { return at(silent) }, health.ReasonTimeout, "TLS: no answer in time"},
		{"garbage", nil, func() probe.Target { return at(garbage) }, health.ReasonTLS, "TLS"},
		{"hangs up", nil, func() probe.Target { return at(hangup) }, health.ReasonTLS, "TLS"},
		{"slow status", func() { r.master.SetDelay(time.Minute) }, r.target, health.ReasonTimeout, "status: no answer in time"},
		{"no such name", nil, func() probe.Target {
			return probe.Target{Subject: "m1.lost.example.", Name: name, Port: 8140}
		}, health.ReasonResolve, "no such host"},
		{"a name without address", nil, func() probe.Target {
			return probe.Target{Subject: "m1.empty.example.", Name: name, Port: 8140}
		}, health.ReasonResolve, "no address"},
		{"found by its name", func() { r.master.SetDelay(0) }, func() probe.Target {
			return probe.Target{Subject: "m1.found.example.", Name: name, Port: r.master.Addr().Port()}
		}, health.ReasonOK, ""},
		{"dead", func() { r.master.Close() }, r.target, health.ReasonRefused, "refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.arrange != nil {
				tt.arrange()
			}
			timeout := 20 * time.Second
			if tt.reason == health.ReasonTimeout {
				timeout = 200 * time.Millisecond
			}
			o := r.look(tt.target(), timeout)
			if o.Reason != tt.reason {
				t.Errorf("reason %q (%s), want %q", o.Reason, o.Detail, tt.reason)
			}
			if !strings.Contains(o.Detail, tt.detail) {
				t.Errorf("detail %q does not say %q", o.Detail, tt.detail)
			}
			if strings.ContainsAny(o.Detail, "\r\n") || len(o.Detail) > 200 {
				t.Errorf("detail %q does not fit a log line", o.Detail)
			}
			if tt.reason == health.ReasonCertificate && o.Certificate == nil {
				t.Error("the certificate that failed is not kept")
			}
		})
	}
}

func at(l net.Listener) probe.Target {
	a := l.Addr().(*net.TCPAddr).AddrPort()
	return probe.Target{Subject: name, Name: name, Addresses: []netip.Addr{a.Addr()}, Port: a.Port()}
}

// listen serves every connection with f and then closes it.
func listen(t *testing.T, f func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				ended := make(chan struct{})
				go func() { f(c); close(ended) }()
				select {
				case <-ended:
				case <-done:
				}
			})
		}
	})
	t.Cleanup(func() { close(done); l.Close(); wg.Wait() })
	return l
}

func TestOneOfSeveralAddressesIsEnough(t *testing.T) {
	r := newRig(t)
	target := r.target()
	target.Addresses = append([]netip.Addr{netip.MustParseAddr("127.0.0.254"), netip.MustParseAddr("::1")}, target.Addresses...)
	if o := r.look(target, 5*time.Second); !o.OK() {
		t.Errorf("%s: %s", o.Reason, o.Detail)
	}
}

// watch starts a prober of r's master. Its observations come one by one.
func (r *rig) watch(s probe.Schedule, doubted bool) <-chan health.Observation {
	seen := make(chan health.Observation)
	done := make(chan struct{})
	p := probe.Start(r.check, s, []probe.Target{r.target()}, func(o health.Observation) bool {
		select {
		case seen <- o:
		case <-done:
		}
		return doubted
	})
	r.t.Cleanup(func() { close(done); p.Stop() })
	return seen
}

// With an interval of an hour only the tripwire can tell of a death.
func TestTheTripwireTellsOfADeathAtOnce(t *testing.T) {
	r := newRig(t)
	seen := r.watch(probe.Schedule{Interval: time.Hour, Timeout: 5 * time.Second, Concurrency: 1}, false)
	if o := <-seen; !o.OK() {
		t.Fatal(o.Detail)
	}
	r.master.Close()
	// Refused, or reset if the look was quicker than the last of the listener.
	if o := <-seen; o.OK() {
		t.Error("the look after the death is a success")
	}
}

func TestAFailureInDoubtIsLookedAtAgainSoon(t *testing.T) {
	r := newRig(t)
	r.master.SetStatus(503, "error")
	seen := r.watch(probe.Schedule{Interval: time.Hour, Timeout: 5 * time.Second, Concurrency: 1}, true)
	for range 4 {
		if o := <-seen; o.Reason != health.ReasonStatus {
			t.Fatalf("reason %q (%s)", o.Reason, o.Detail)
		}
	}
}

// A server that closes every idle connection is not probed without end: one trip
// for each look that the schedule makes.
func TestAServerThatClosesIdleConnectionsIsNotProbedWithoutEnd(t *testing.T) {
	r := newRig(t)
	id := r.identity(stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{"m1.example.net"}})
	l := listen(t, func(c net.Conn) {
		conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{id.Certificate}})
		var b [4096]byte
		conn.Read(b[:])
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nrunning")
	})
	var mu sync.Mutex
	looks := 0
	settled := make(chan struct{})
	p := probe.Start(r.check, probe.Schedule{Interval: 300 * time.Millisecond, Timeout: 5 * time.Second, Concurrency: 1},
		[]probe.Target{at(l)}, func(o health.Observation) bool {
			mu.Lock()
			defer mu.Unlock()
			if looks++; looks == 6 {
				close(settled)
			}
			return false
		})
	start := time.Now()
	<-settled
	p.Stop()
	// Six looks are three by schedule at least, of which the second comes early.
	if d := time.Since(start); d < 250*time.Millisecond {
		t.Errorf("six looks took %v: the tripwire makes a loop", d)
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	r := newRig(t)
	const limit = 3
	var mu sync.Mutex
	busy, most := 0, 0
	l := listen(t, func(c net.Conn) {
		mu.Lock()
		busy++
		most = max(most, busy)
		mu.Unlock()
		var b [4096]byte
		for { // until the prober gives up
			if _, err := c.Read(b[:]); err != nil {
				break
			}
		}
		mu.Lock()
		busy--
		mu.Unlock()
	})
	targets := make([]probe.Target, 60)
	for i := range targets {
		targets[i] = at(l)
		targets[i].Subject = fmt.Sprintf("m%d.", i)
	}
	var seen sync.WaitGroup
	seen.Add(len(targets))
	var once sync.Map
	p := probe.Start(r.check, probe.Schedule{Interval: time.Hour, Timeout: 50 * time.Millisecond, Concurrency: limit}, targets,
		func(o health.Observation) bool {
			if _, again := once.LoadOrStore(o.Subject, true); !again {
				seen.Done()
			}
			return false
		})
	seen.Wait()
	p.Stop()
	mu.Lock()
	defer mu.Unlock()
	// At first the slots of the silent are taken too, and the ends of looks travel
	// while the next begin.
	if most >= len(targets) {
		t.Errorf("%d looks at once, of %d targets: there is no bound", most, len(targets))
	}
}

// Masters that never answer take no place from those that do. With one place for
// all, each look at the good one would wait for one at each of the silent.
func TestTheSilentDoNotHoldUpTheOthers(t *testing.T) {
	r := newRig(t)
	silent := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	targets := []probe.Target{r.target()}
	const others = 10
	var once [others]sync.Once
	var known sync.WaitGroup // to be silent
	known.Add(others)
	for i := range others {
		targets = append(targets, at(silent))
		targets[i+1].Subject = fmt.Sprint(i)
	}
	var mu sync.Mutex
	good, bad := 0, 0
	looked := make(chan struct{}, 1)
	p := probe.Start(r.check, probe.Schedule{Interval: 10 * time.Millisecond, Timeout: 200 * time.Millisecond, Concurrency: 1}, targets,
		func(o health.Observation) bool {
			mu.Lock()
			defer mu.Unlock()
			if o.Subject == name {
				good++
				select {
				case looked <- struct{}{}:
				default:
				}
				return false
			}
			bad++
			var i int
			fmt.Sscan(o.Subject, &i)
			once[i].Do(known.Done)
			return false
		})
	known.Wait()
	mu.Lock()
	good, bad = 0, 0
	mu.Unlock()
	const n = 40
	for enough := false; !enough; {
		<-looked
		mu.Lock()
		enough = good >= n
		mu.Unlock()
	}
	p.Stop()
	if bad > n*others/2 {
		t.Errorf("%d looks at the silent during %d at the good one", bad, good)
	}
}

func TestStopDuringALook(t *testing.T) {
	r := newRig(t)
	looking := make(chan struct{})
	l := listen(t, func(c net.Conn) { close(looking); io.Copy(io.Discard, c) })
	p := probe.Start(r.check, probe.Schedule{Interval: time.Second, Timeout: time.Minute, Concurrency: 1}, []probe.Target{at(l)},
		func(o health.Observation) bool { t.Errorf("reported %+v", o); return false })
	<-looking
	p.Stop()
}
