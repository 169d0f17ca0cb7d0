package probe

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/health"
)

// Schedule says how often to look. All durations are positive.
type Schedule struct {
	Interval time.Duration // between the starts of two looks
	Timeout  time.Duration // of one look
	// Concurrency is how many looks are under way at once, over all targets, and
	// as many again at those that let the last one time out: a datacenter that is
	// cut off must not keep the others from being looked at.
	Concurrency int
}

// The pause before a failure is looked at again; it doubles with each further
// failure, up to the interval.
const (
	recheckFirst = 50 * time.Millisecond
	// recheckGone is for a master whose tripwire went and which then refused or cut
	// the connection: its process is gone, and until the verdict DNS sends agents
	// there. With recheckFirst each kill cost a run that was under way 2 to 5
	// requests. It doubles to recheckFirst within six looks, so a listener that is
	// long in coming back is not hammered.
	recheckGone = time.Millisecond
)

// recheck returns the pause before a failure in doubt is looked at again. last is the
// pause before the look that failed, 0 if that was the first failure; tripped says that
// the tripwire led to it. Silence, a 503 or a bad certificate do not come from a process
// that is gone: there is time to think.
func recheck(last time.Duration, tripped bool, reason health.Reason) time.Duration {
	if last > 0 {
		return 2 * last
	}
	// TLS and HTTP: a process may lose its listener after the tripwire, and mostly does
	// with hundreds of connections (Linux 6.18); the look's connection is then taken, and
	// cut.
	if tripped && (reason == health.ReasonRefused || reason == health.ReasonTLS || reason == health.ReasonHTTP) {
		return recheckGone
	}
	return recheckFirst
}

// Report takes an observation and says whether it is in doubt: then the next
// look is a quick one. It is called from many goroutines, for one subject from
// one at a time.
type Report func(health.Observation) (doubted bool)

// Prober looks at its targets until it is stopped.
type Prober struct {
	check    *Check
	schedule Schedule
	report   Report
	slots    chan struct{}
	silent   chan struct{} // for those that let the last look time out
	cancel   context.CancelFunc
	done     sync.WaitGroup
}

// Start begins to look at the targets. Their first looks are made at once, as
// far as Concurrency allows; later ones are spread by jitter.
func Start(check *Check, schedule Schedule, targets []Target, report Report) *Prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Prober{check: check, schedule: schedule, report: report, cancel: cancel,
		slots: make(chan struct{}, max(schedule.Concurrency, 1)), silent: make(chan struct{}, max(schedule.Concurrency, 1))}
	for _, t := range targets {
		p.done.Go(func() { p.watch(ctx, t) })
	}
	return p
}

// Stop ends all looking and returns when no goroutine is left.
func (p *Prober) Stop() {
	p.cancel()
	p.done.Wait()
}

// watch looks at one target for ever: at every interval, sooner after a failure
// that has not settled, and at once when the tripwire goes.
func (p *Prober) watch(ctx context.Context, t Target) {
	wire := newTripwire()
	defer wire.set(nil)
	timer := time.NewTimer(0)
	defer timer.Stop()
	// tripped holds until what the tripwire told of has settled; again is the pause
	// before a look at a failure in doubt, 0 where there is none.
	tripped, again := false, time.Duration(0)
	first, silent := true, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-wire.tripped:
			tripped = true
		}
		start := time.Now()
		timeout := p.schedule.Timeout
		slots := p.slots
		if silent {
			slots = p.silent
			if again > 0 {
				timeout /= 2 // it has had its benefit of the doubt
			}
		}
		o, conn, ok := p.look(ctx, t, slots, timeout)
		if !ok {
			return
		}
		silent = o.Reason == health.ReasonTimeout
		if tripped && conn != nil {
			// A server that closes every idle connection, even one that refuses
			// now and then, would be looked at without end: one trip an
			// interval is enough.
			conn.Close()
			conn = nil
		}
		wire.set(conn)
		doubted := p.report(o)
		pause := p.schedule.Interval - time.Since(start)
		if o.OK() || !doubted {
			tripped, again = false, 0
			// Jitter shortens only: the interval is a promise. The first one
			// spreads the targets over it.
			spread := p.schedule.Interval / 10
			if first {
				spread = p.schedule.Interval
			}
			pause -= rand.N(spread + 1)
			first = false
		} else {
			again = min(recheck(again, tripped, o.Reason), p.schedule.Interval)
			pause = min(pause, again)
		}
		timer.Reset(max(pause, 0))
	}
}

// look takes a slot and looks once. It reports !ok when ctx ended.
func (p *Prober) look(ctx context.Context, t Target, slots chan struct{}, timeout time.Duration) (health.Observation, net.Conn, bool) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return health.Observation{}, nil, false
	}
	defer func() { <-slots }()
	looking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	o, conn := p.check.Do(looking, t)
	if ctx.Err() != nil { // stopped: what was seen says nothing about the master
		if conn != nil {
			conn.Close()
		}
		return o, nil, false
	}
	return o, conn, true
}

// tripwire is an idle connection to a master. When the master's process dies,
// the kernel closes it at once; that is a reason to look, and no verdict by
// itself, because a server may close idle connections for its own reasons.
type tripwire struct {
	tripped chan struct{}
	conn    net.Conn
	gone    chan struct{} // closed when conn's reader has ended
}

func newTripwire() *tripwire { return &tripwire{tripped: make(chan struct{}, 1)} }

// set replaces the connection; the old one is closed and cannot trip any more.
func (w *tripwire) set(conn net.Conn) {
	if w.conn != nil {
		w.conn.Close()
		<-w.gone
	}
	select {
	case <-w.tripped:
	default:
	}
	w.conn = conn
	if conn == nil {
		return
	}
	gone := make(chan struct{})
	w.gone = gone
	go func() {
		defer close(gone)
		var b [1]byte
		// Data is as good a reason as an end: nothing is due on this connection.
		io.ReadFull(conn, b[:])
		select {
		case w.tripped <- struct{}{}:
		default:
		}
	}()
}
