package probe_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/health"
	"github.com/puppetsrv/puppetsrv/internal/probe"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

func TestThePauseBeforeTheNextLook(t *testing.T) {
	for reason, gone := range map[health.Reason]bool{
		health.ReasonRefused: true, health.ReasonTLS: true, health.ReasonHTTP: true,
		health.ReasonTimeout: false, health.ReasonStatus: false, health.ReasonCertificate: false,
		health.ReasonResolve: false, health.ReasonUnreachable: false,
	} {
		for _, tripped := range []bool{false, true} {
			want := probe.RecheckFirst
			if tripped && gone {
				want = probe.RecheckGone
			}
			var pause time.Duration
			for n := range 10 {
				if pause = probe.Recheck(pause, tripped, reason); pause != want {
					t.Errorf("%s, tripped %v: pause %d is %v, want %v", reason, tripped, n+1, pause, want)
				}
				want *= 2
			}
		}
	}
	if probe.RecheckGone < time.Millisecond || probe.RecheckGone > probe.RecheckFirst/10 {
		t.Errorf("pauses of %v and %v: a loop, or no gain", probe.RecheckGone, probe.RecheckFirst)
	}
}

// race watches m1, which runs, and lets it end in some way that trips the wire. With the
// first failure begins another prober, of a master that was dead before: the plain
// failure. race returns how many looks at m1 had failed when the plain one had its second
// and its fifth. All failures stay in doubt.
func race(t *testing.T, r *rig, target probe.Target, end func()) (second, fifth int64) {
	t.Helper()
	dead := newRig(t)
	dead.master.Close()
	schedule := probe.Schedule{Interval: time.Hour, Timeout: 5 * time.Second, Concurrency: 1}
	var failed, plain atomic.Int64
	var once sync.Once
	up, over := make(chan struct{}), make(chan struct{})
	var other *probe.Prober
	p := probe.Start(r.check, schedule, []probe.Target{target}, func(o health.Observation) bool {
		if o.OK() {
			once.Do(func() { close(up) }) // another may come at any time in the hour
			return false
		}
		if failed.Add(1) > 1 {
			return true
		}
		// m1's next look is not due before the plain one has had its first.
		looked := make(chan struct{})
		other = probe.Start(dead.check, schedule, []probe.Target{dead.target()}, func(health.Observation) bool {
			switch plain.Add(1) {
			case 1:
				close(looked)
			case 2:
				second = failed.Load()
			case 5:
				fifth = failed.Load()
				close(over)
			}
			return true
		})
		<-looked
		return true
	})
	<-up
	end()
	<-over
	p.Stop()
	other.Stop()
	return second, fifth
}

// While a plain failure waits for its second look, a dead process has had it: that is
// the verdict with `fall 2`. And it is not hammered: its pauses double too.
func TestAProcessThatIsGoneIsLookedAtAgainAtOnce(t *testing.T) {
	r := newRig(t)
	second, fifth := race(t, r, r.target(), func() { r.master.Close() })
	// By the pauses 6, and 10 at the fifth.
	if second < 3 {
		t.Errorf("%d looks when a plain failure had its second: the verdict waits", second)
	}
	if fifth > 14 {
		t.Errorf("%d looks when a plain failure had its fifth: it is hammered", fifth)
	}
}

// A server that ends its idle connections and answers 503 lives: it has the pauses of a
// plain failure.
func TestAProcessThatLivesIsGivenTime(t *testing.T) {
	r := newRig(t)
	id := r.identity(stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{"m1.example.net"}})
	stopping := make(chan struct{})
	l := listen(t, func(c net.Conn) {
		conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{id.Certificate}})
		var b [4096]byte
		conn.Read(b[:])
		select {
		case <-stopping:
			fmt.Fprint(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\nstopping")
		default:
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nrunning")
			<-stopping
		}
	})
	if second, _ := race(t, r, at(l), func() { close(stopping) }); second > 3 {
		t.Errorf("%d looks when a plain failure had its second", second)
	}
}

// Nor is a server looked at without end that closes each idle connection and refuses
// every other new one, as behind a packet filter with a limit on new connections.
func TestAServerThatRefusesNowAndThenIsNotProbedWithoutEnd(t *testing.T) {
	r := newRig(t)
	id := r.identity(stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{"m1.example.net"}})
	var taken atomic.Int64
	l := listen(t, func(c net.Conn) {
		if taken.Add(1)%2 == 0 {
			return
		}
		conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{id.Certificate}})
		var b [4096]byte
		conn.Read(b[:])
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nrunning")
	})
	const interval = 300 * time.Millisecond
	looks, settled := 0, make(chan struct{})
	start := time.Now()
	p := probe.Start(r.check, probe.Schedule{Interval: interval, Timeout: 5 * time.Second, Concurrency: 1}, []probe.Target{at(l)},
		func(o health.Observation) bool {
			if looks++; looks == 9 {
				close(settled)
			}
			return !o.OK()
		})
	<-settled
	p.Stop()
	// An interval has four looks at the most: by schedule, by the trip, again, and again.
	if d := time.Since(start); d < interval {
		t.Errorf("nine looks took %v: the tripwire makes a loop", d)
	}
}
