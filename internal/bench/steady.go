package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// The open loop offers questions at a rate, whether they are answered or not.
const (
	steadyRate  = 50000 // questions a second, over all sockets
	steadyTime  = 20 * time.Second
	steadyRest  = 500 * time.Microsecond
	churnEvery  = 150 * time.Millisecond
	reloadEvery = time.Second
	drainFor    = time.Second
	maxBurst    = 400  // what is sent at once after a pause of this program
	minOffered  = 0.95 // of the rate, or the run says little
)

// steadyQuestion is asked on a socket of its own, so that answers need no
// matching: every one of them must have this many records.
type steadyQuestion struct {
	name    string
	qtype   uint16
	answers int
}

// tally is what came back.
type tally struct {
	offered, answered         int
	servfail, refused, others int // by rcode
	short                     int // NOERROR with fewer records than must be there
	elapsed                   time.Duration
}

func (t *tally) add(b []byte, want int) {
	t.answered++
	switch rcodeOf(b) {
	case dns.RcodeSuccess:
		if answers := int(b[6])<<8 | int(b[7]); answers < want {
			t.short++
		}
	case dns.RcodeServerFailure:
		t.servfail++
	case dns.RcodeRefused:
		t.refused++
	default:
		t.others++
	}
}

func (t *tally) wrong() int { return t.servfail + t.refused + t.others + t.short }

// steady offers a load while verdicts change and the Corefile is reloaded.
func (b *bench) steady() error {
	b.report.title(fmt.Sprintf("%d questions per second offered for %v, masters changing and dying, SIGUSR1 every %v", steadyRate, steadyTime, reloadEvery))
	s, err := b.newSite("steady", 4, 2)
	if err != nil {
		return err
	}
	stubs, err := s.startStubs()
	if err != nil {
		return err
	}
	defer func() {
		for _, m := range stubs {
			m.Close()
		}
	}()
	o := nodeOptions{probe: "interval 200ms timeout 1s", ttl: 5}
	n, err := b.startNode(s, "steady", nodeAddress, o)
	if err != nil {
		return err
	}
	before, err := b.buildTimes(n)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(b.ctx, steadyTime)
	defer cancel()
	var done sync.WaitGroup
	var t tally
	var loadErr, churnErr error
	done.Go(func() { t, loadErr = openLoop(ctx, n) })
	done.Go(func() { churnErr = s.churn(ctx, stubs) })
	reloads, reloadErr := s.reloads(ctx, n, o)
	done.Wait()
	for _, err := range []error{loadErr, churnErr, reloadErr, b.ctx.Err(), n.alive()} {
		if err != nil {
			return err
		}
	}
	after, err := b.buildTimes(n)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(n.log)
	if err != nil {
		return err
	}
	complete := bytes.Count(text, []byte("Reloading complete"))
	verdicts := bytes.Count(text, []byte(".: master ")) // one line each
	if verdicts == 0 {
		return fmt.Errorf("%s: no verdict changed: nothing was shown", n.name)
	}
	b.report.row(fmt.Sprintf("wrong answers, over %d reloads, %d verdicts, %d snapshots", complete, verdicts, after.count-before.count),
		fmt.Sprintf("%d SERVFAIL, %d REFUSED, %d other, %d short", t.servfail, t.refused, t.others, t.short),
		fmt.Sprintf("%d answers", t.answered), "0", true, t.wrong() == 0 && complete == reloads && t.answered > 0)
	offered := float64(t.offered) / t.elapsed.Seconds()
	b.report.row("offered and answered", fmt.Sprintf("%.1f k/s, %.2f %% answered", offered/1e3, 100*float64(t.answered)/float64(t.offered)),
		"", fmt.Sprintf("offered >= %.1f k/s", minOffered*steadyRate/1e3), true, offered >= minOffered*steadyRate)
	return nil
}

// openLoop sends at the rate until ctx ends.
func openLoop(ctx context.Context, n *node) (t tally, err error) {
	runtime.LockOSThread() // rest is the thread's
	defer runtime.UnlockOSThread()
	questions := []steadyQuestion{
		{"_x-puppet._tcp.datacenter1." + zoneName + ".", dns.TypeSRV, 4},
		{"_x-puppet._tcp.datacenter2." + zoneName + ".", dns.TypeSRV, 4},
		{"_x-puppet-ca._tcp.datacenter1." + zoneName + ".", dns.TypeSRV, 1},
		{"puppet-camaster." + zoneName + ".", dns.TypeA, 2},
	}
	var packed [][]byte
	var sockets []*socket
	for _, q := range questions {
		p, err := pack(q.name, q.qtype, resolverSize)
		if err != nil {
			return t, err
		}
		s, err := dialSocket(n.dns)
		if err != nil {
			return t, err
		}
		defer s.close()
		packed, sockets = append(packed, p), append(sockets, s)
	}
	buf := make([]byte, dns.MaxMsgSize)
	receive := func() error {
		for i, s := range sockets {
			for {
				n, err := s.receive(buf)
				if err != nil {
					return err
				}
				if n == 0 {
					break
				}
				t.add(buf[:n], questions[i].answers)
			}
		}
		return nil
	}
	start := time.Now()
	skipped := 0
	for ctx.Err() == nil {
		due := int(time.Since(start).Seconds()*steadyRate) - t.offered - skipped
		if due > maxBurst { // this program was stopped for a while: not to be caught up with
			skipped += due - maxBurst
			due = maxBurst
		}
		for range due {
			i := t.offered % len(sockets)
			if _, err := sockets[i].send(packed[i]); err != nil {
				return t, err
			}
			t.offered++
		}
		rest(steadyRest)
		if err := receive(); err != nil {
			return t, err
		}
	}
	t.elapsed = time.Since(start)
	for end := time.Now().Add(drainFor); time.Now().Before(end) && t.answered < t.offered; {
		rest(steadyRest)
		if err := receive(); err != nil {
			return t, err
		}
	}
	return t, nil
}

// churn changes a master at a time until ctx ends: busy or running, dead or
// started again.
func (s *site) churn(ctx context.Context, stubs []*stub.Master) error {
	busy := make([]bool, len(stubs))
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		i := rand.N(len(stubs))
		if rand.N(3) == 0 {
			stubs[i].Close()
			m, err := s.startStub(i)
			if err != nil {
				return err
			}
			stubs[i], busy[i] = m, false
			continue
		}
		if busy[i] = !busy[i]; busy[i] {
			stubs[i].SetStatus(http.StatusServiceUnavailable, "stopping")
		} else {
			stubs[i].SetStatus(http.StatusOK, "running")
		}
	}
}

// reloads has the node reload its Corefile until ctx ends: in turn an unchanged
// one and one that makes another runtime. It returns how often.
func (s *site) reloads(ctx context.Context, n *node, o nodeOptions) (int, error) {
	count := 0
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return count, nil
		case <-tick.C:
		}
		if count%2 == 1 {
			o.ttl = 11 - o.ttl
			if err := s.write(n, o); err != nil {
				return count, err
			}
		}
		if err := n.signal(syscall.SIGUSR1); err != nil {
			return count, err
		}
		count++
	}
}
