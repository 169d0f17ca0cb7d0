// Package flip measures when DNS servers begin to answer a new target for a
// CNAME, by asking them.
//
// It asks the servers that it is given, over UDP, and nobody else; it changes
// nothing and knows nothing of the API.
package flip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// Server is one address of one node.
type Server struct {
	Node    string
	Address string // IP:port; "" if not known
}

// Answer is what became of asking one server.
type Answer struct {
	Server
	At  time.Time // when the new target was answered; zero if it never was
	Err string    // for people: what was answered instead, or why nothing was
}

// Watch asks all servers for the CNAME name, each every few milliseconds, until it
// answers target or ctx ends. It calls f with each server's answer once, as it
// comes, never two at a time, and returns when all are done.
func Watch(ctx context.Context, name, target string, servers []Server, f func(Answer)) {
	var (
		wait sync.WaitGroup
		mu   sync.Mutex
	)
	for _, s := range servers {
		wait.Go(func() {
			a := Answer{Server: s}
			a.At, a.Err = ask(ctx, dns.Fqdn(name), dns.Fqdn(target), s.Address)
			mu.Lock()
			defer mu.Unlock()
			f(a)
		})
	}
	wait.Wait()
}

// pause is how long to wait before the next question, this long after the first:
// often while an answer is near, seldom when it is not.
func pause(elapsed time.Duration) time.Duration {
	switch {
	case elapsed < 500*time.Millisecond:
		return 3 * time.Millisecond
	case elapsed < 2*time.Second:
		return 20 * time.Millisecond
	}
	return 100 * time.Millisecond
}

// ask puts questions to one server until it answers target. It does not wait for
// one answer before it sends the next question: a lost packet costs one pause, and
// a far server is measured as well as a near one.
func ask(ctx context.Context, name, target, address string) (at time.Time, why string) {
	if address == "" {
		return time.Time{}, "it is not known where its DNS answers"
	}
	conn, err := new(net.Dialer).DialContext(ctx, "udp", address)
	if err != nil {
		return time.Time{}, fmt.Sprintf("%s cannot be asked: %v", address, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	done := make(chan struct{})
	var sender sync.WaitGroup
	defer sender.Wait()
	defer close(done)
	defer conn.Close()
	sender.Go(func() {
		began := time.Now()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			q := new(dns.Msg).SetQuestion(name, dns.TypeCNAME)
			q.RecursionDesired = false // the node's own word, not a cache's
			packet, err := q.Pack()
			if err != nil {
				conn.Close()
				return
			}
			_, _ = conn.Write(packet) // what is wrong with the way there, the read says
			timer.Reset(pause(time.Since(began)))
		}
	})

	why = "no answer"
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, err := conn.Read(buf)
		now := time.Now()
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			// ICMP says that nobody listens there now; the process may be about to.
			why = "nothing listens there"
			continue
		case errors.Is(err, net.ErrClosed):
			return time.Time{}, why
		case err != nil:
			return time.Time{}, fmt.Sprintf("asking failed: %v", err)
		}
		r := new(dns.Msg)
		if r.Unpack(buf[:n]) != nil || !r.Response || len(r.Question) != 1 || !strings.EqualFold(r.Question[0].Name, name) {
			continue
		}
		got, what := cname(r, name)
		if strings.EqualFold(got, target) {
			return now, ""
		}
		why = what
	}
}

// cname is the target that a response gives for name, and a sentence on it.
func cname(r *dns.Msg, name string) (target, what string) {
	for _, rr := range r.Answer {
		if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(c.Hdr.Name, name) {
			return c.Target, "it still answers " + strings.TrimSuffix(c.Target, ".")
		}
	}
	if r.Rcode != dns.RcodeSuccess {
		return "", "it answers " + dns.RcodeToString[r.Rcode]
	}
	return "", "it answers without a CNAME"
}
