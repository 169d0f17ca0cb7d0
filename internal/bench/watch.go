package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// watchEvery is the pause between two questions of a watcher: the resolution of
// what is measured.
const watchEvery = time.Millisecond

// watchLimit is when an expected answer is given up.
const watchLimit = 20 * time.Second

// expectation is an answer that a node should give soon.
type expectation struct {
	node    *node
	name    string
	qtype   uint16
	matches func(*dns.Msg) bool
}

// await asks until every expectation is met and returns, for each, the time
// from start until the node first answered so.
func await(ctx context.Context, start time.Time, expected []expectation) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	took := make([]time.Duration, len(expected))
	errs := make([]error, len(expected))
	var done sync.WaitGroup
	for i, e := range expected {
		done.Go(func() { took[i], errs[i] = e.await(ctx, start) })
	}
	done.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err // one is enough: they tend to be the same
		}
	}
	return took, nil
}

func (e *expectation) await(ctx context.Context, start time.Time) (time.Duration, error) {
	question, err := pack(e.name, e.qtype, resolverSize)
	if err != nil {
		return 0, err
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(e.node.dns))
	if err != nil {
		return 0, fmt.Errorf("asking %s: %w", e.node.name, err)
	}
	defer conn.Close()
	buf := make([]byte, dns.MaxMsgSize)
	var last *dns.Msg
	for ctx.Err() == nil {
		if _, err := conn.Write(question); err != nil {
			return 0, fmt.Errorf("asking %s: %w", e.node.name, err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return 0, err
		}
		n, err := conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("waiting for an answer of %s: %w", e.node.name, err)
		}
		at := time.Now()
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			return 0, fmt.Errorf("understanding an answer of %s: %w", e.node.name, err)
		}
		if e.matches(m) {
			return at.Sub(start), nil
		}
		last = m
		time.Sleep(watchEvery)
	}
	return 0, fmt.Errorf("%s did not answer as expected within %v: %w; the last answer was\n%v", e.node.name, watchLimit, ctx.Err(), last)
}

// listed matches the tiers with target at exactly this priority, and at the end
// of them if last.
func listed(target string, priority uint16, last bool) func(*dns.Msg) bool {
	return func(m *dns.Msg) bool {
		for i, rr := range m.Answer {
			if srv, ok := rr.(*dns.SRV); ok && srv.Target == target {
				return srv.Priority == priority && (!last || i == len(m.Answer)-1)
			}
		}
		return false
	}
}

// leftOut matches the tiers of all the others.
func leftOut(target string, others int) func(*dns.Msg) bool {
	return func(m *dns.Msg) bool {
		for _, rr := range m.Answer {
			if srv, ok := rr.(*dns.SRV); !ok || srv.Target == target {
				return false
			}
		}
		return len(m.Answer) == others
	}
}

// addressed matches one address for which ok holds.
func addressed(ok func(net.IP) bool) func(*dns.Msg) bool {
	return func(m *dns.Msg) bool {
		if len(m.Answer) != 1 {
			return false
		}
		a, isA := m.Answer[0].(*dns.A)
		return isA && ok(a.A)
	}
}

// aliased matches an alias of target, with an address.
func aliased(target string) func(*dns.Msg) bool {
	return func(m *dns.Msg) bool {
		if len(m.Answer) != 2 {
			return false
		}
		alias, isAlias := m.Answer[0].(*dns.CNAME)
		_, isA := m.Answer[1].(*dns.A)
		return isAlias && isA && alias.Target == target
	}
}

// alone matches one target and no other.
func alone(target string) func(*dns.Msg) bool {
	return func(m *dns.Msg) bool {
		if len(m.Answer) != 1 {
			return false
		}
		srv, ok := m.Answer[0].(*dns.SRV)
		return ok && srv.Target == target
	}
}
