package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/miekg/dns"
)

// The closed loop keeps a window of questions under way, so that the server is
// never idle and never has to drop one. It looks for answers now and then
// instead of waiting for them, and asks again for each. A server that is busy
// all the time is where the CPU time of a query says what it costs; at less
// load, most of it is what the kernel takes to wake and to put to sleep.
const (
	loadWindow = 128 // fits a socket's default buffer
	loadRest   = 300 * time.Microsecond
	// lostAfter is when everything under way counts as lost.
	lostAfter = time.Second
)

// loadResult is what a load was answered.
type loadResult struct {
	answered, lost int
	elapsed        time.Duration
}

// pack makes the wire form of one question. size is the EDNS0 buffer size, 0 for
// none.
func pack(name string, qtype, size uint16) ([]byte, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.RecursionDesired = false
	m.Id = 1
	if size > 0 {
		m.SetEdns0(size, false)
	}
	b, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("packing the question %s %s: %w", name, dns.TypeToString[qtype], err)
	}
	return b, nil
}

// closedLoop asks the server the same question for the given time. Every answer
// must have the rcode.
func closedLoop(ctx context.Context, server netip.AddrPort, question []byte, rcode int, d time.Duration) (r loadResult, err error) {
	runtime.LockOSThread() // rest is the thread's
	defer runtime.UnlockOSThread()
	s, err := dialSocket(server)
	if err != nil {
		return r, err
	}
	defer s.close()
	buf := make([]byte, dns.MaxMsgSize)
	start := time.Now()
	now, heard := start, start
	pending := 0
	for now.Sub(start) < d && ctx.Err() == nil {
		for pending < loadWindow {
			sent, err := s.send(question)
			if err != nil {
				return r, err
			}
			if !sent {
				break
			}
			pending++
		}
		rest(loadRest)
		now = time.Now()
		for {
			n, err := s.receive(buf)
			if err != nil {
				return r, err
			}
			if n == 0 {
				break
			}
			if got := rcodeOf(buf[:n]); got != rcode {
				return r, fmt.Errorf("%v answers %s, want %s", server, dns.RcodeToString[got], dns.RcodeToString[rcode])
			}
			r.answered++
			pending--
			heard = now
		}
		if now.Sub(heard) > lostAfter {
			r.lost += pending
			pending, heard = 0, now
		}
	}
	r.elapsed = now.Sub(start)
	return r, ctx.Err()
}

// rcodeOf reads the header (RFC 1035, section 4.1.1); FORMERR for what has none.
func rcodeOf(b []byte) int {
	if len(b) < 12 {
		return dns.RcodeFormatError
	}
	return int(b[3] & 0xf)
}
