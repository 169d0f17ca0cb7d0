package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/miekg/dns"
)

// The open loop offers questions at a rate, whether they are answered or not.
const (
	openRest   = 500 * time.Microsecond
	drainFor   = time.Second
	maxBurst   = 400  // what is sent at once after a pause of this program
	minOffered = 0.95 // of the rate, or the run says little
)

// offer is a question that is asked of a node on a socket of its own, so that
// answers need no matching: every one of them must have this many records.
type offer struct {
	node    *node
	name    string
	qtype   uint16
	answers int
}

// offers are what agents ask for, of each of the nodes.
func offers(s *site, nodes ...*node) []offer {
	var all []offer
	for _, n := range nodes {
		all = append(all,
			offer{n, "_x-puppet._tcp.datacenter1." + zoneName + ".", dns.TypeSRV, len(s.masters)},
			offer{n, "_x-puppet._tcp.datacenter2." + zoneName + ".", dns.TypeSRV, len(s.masters)},
			offer{n, "_x-puppet-ca._tcp.datacenter1." + zoneName + ".", dns.TypeSRV, 1},
			offer{n, camasterName, dns.TypeA, 2}, // the CNAME and its target's address
		)
	}
	return all
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

// wrongRow reports answers that must not be; ok is what else must hold.
func (b *bench) wrongRow(label string, t tally, ok bool) {
	b.report.row(label, fmt.Sprintf("%d SERVFAIL, %d REFUSED, %d other, %d short", t.servfail, t.refused, t.others, t.short),
		fmt.Sprintf("%d answers", t.answered), "0", true, t.wrong() == 0 && ok && t.answered > 0)
}

// offeredRow reports whether the load was what it should have been.
func (b *bench) offeredRow(t tally, perSecond int) {
	offered := float64(t.offered) / t.elapsed.Seconds()
	least := minOffered * float64(perSecond)
	b.report.row("offered and answered", fmt.Sprintf("%.1f k/s, %.2f %% answered", offered/1e3, 100*float64(t.answered)/float64(t.offered)),
		"", fmt.Sprintf("offered >= %.1f k/s", least/1e3), true, offered >= least)
}

// openLoop sends the questions in turn, perSecond of them in all, until ctx ends.
func openLoop(ctx context.Context, perSecond int, questions []offer) (t tally, err error) {
	runtime.LockOSThread() // rest is the thread's
	defer runtime.UnlockOSThread()
	var packed [][]byte
	var sockets []*socket
	for _, q := range questions {
		p, err := pack(q.name, q.qtype, resolverSize)
		if err != nil {
			return t, err
		}
		s, err := dialSocket(q.node.dns)
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
		due := int(time.Since(start).Seconds()*float64(perSecond)) - t.offered - skipped
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
		rest(openRest)
		if err := receive(); err != nil {
			return t, err
		}
	}
	t.elapsed = time.Since(start)
	for end := time.Now().Add(drainFor); time.Now().Before(end) && t.answered < t.offered; {
		rest(openRest)
		if err := receive(); err != nil {
			return t, err
		}
	}
	return t, nil
}
