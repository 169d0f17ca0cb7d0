package flip_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/flip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers at a loopback address, each question with what handle makes of its
// number, counted from 1.
func serve(t *testing.T, handle func(n int64, q, r *dns.Msg)) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		handle(asked.Add(1), q, r)
		if r.Response {
			w.WriteMsg(r)
		}
	})}
	var done sync.WaitGroup
	done.Go(func() { server.ActivateAndServe() })
	t.Cleanup(func() { server.Shutdown(); conn.Close(); done.Wait() })
	return conn.LocalAddr().String()
}

func alias(r *dns.Msg, target string) {
	r.Answer = append(r.Answer, &dns.CNAME{
		Hdr:    dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: 5},
		Target: target,
	})
}

const (
	name   = "camaster.example.net"
	before = "m1.example.net."
	after  = "m3.example.net"
)

// watch returns the answers by node; patience is that of the test, for servers that
// never answer.
func watch(t *testing.T, patience time.Duration, servers ...flip.Server) map[string]flip.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answers := make(map[string]flip.Answer)
	flip.Watch(ctx, name, after, servers, func(a flip.Answer) {
		if _, twice := answers[a.Node]; twice {
			t.Errorf("%s answered twice", a.Node)
		}
		answers[a.Node] = a
	})
	if len(answers) != len(servers) {
		t.Errorf("%d answers of %d servers", len(answers), len(servers))
	}
	return answers
}

func TestServersThatChange(t *testing.T) {
	var changed atomic.Int64 // when, in nanoseconds
	late := serve(t, func(n int64, q, r *dns.Msg) {
		if q.RecursionDesired {
			t.Error("recursion is asked for")
		}
		if n < 10 {
			alias(r, before)
			return
		}
		changed.CompareAndSwap(0, time.Now().UnixNano())
		alias(r, "M3.EXAMPLE.NET.") // names have no case
	})
	at := serve(t, func(_ int64, _, r *dns.Msg) { alias(r, after+".") })
	lossy := serve(t, func(n int64, _, r *dns.Msg) {
		if n < 5 {
			r.Response = false // as if lost
			return
		}
		alias(r, after+".")
	})
	began := time.Now()
	answers := watch(t, 30*time.Second,
		flip.Server{Node: "at once", Address: at}, flip.Server{Node: "late", Address: late}, flip.Server{Node: "lossy", Address: lossy})
	for node, a := range answers {
		if a.Err != "" || a.At.Before(began) {
			t.Errorf("%s: %+v", node, a)
		}
	}
	if a := answers["late"]; a.At.UnixNano() < changed.Load() || changed.Load() == 0 {
		t.Errorf("it answered at %v, and changed at %v", a.At, changed.Load())
	}
}

func TestServersThatDoNot(t *testing.T) {
	old := serve(t, func(_ int64, _, r *dns.Msg) { alias(r, before) })
	refusing := serve(t, func(_ int64, _, r *dns.Msg) { r.Rcode = dns.RcodeRefused })
	empty := serve(t, func(_ int64, _, r *dns.Msg) {})
	other := serve(t, func(_ int64, _, r *dns.Msg) {
		r.Question[0].Name = "other.example.net." // an answer to what was not asked
		alias(r, after+".")
	})
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := conn.LocalAddr().String()
	conn.Close()
	answers := watch(t, 300*time.Millisecond,
		flip.Server{Node: "old", Address: old}, flip.Server{Node: "refusing", Address: refusing}, flip.Server{Node: "empty", Address: empty},
		flip.Server{Node: "other", Address: other}, flip.Server{Node: "closed", Address: closed}, flip.Server{Node: "unknown"},
		flip.Server{Node: "nonsense", Address: "nonsense"})
	for node, want := range map[string]string{
		"old":      "it still answers m1.example.net",
		"refusing": "it answers REFUSED",
		"empty":    "it answers without a CNAME",
		"other":    "no answer",
		"closed":   "nothing listens there",
		"unknown":  "it is not known where its DNS answers",
		"nonsense": "nonsense cannot be asked",
	} {
		if a := answers[node]; !a.At.IsZero() || !strings.Contains(a.Err, want) {
			t.Errorf("%s: %+v, want %q", node, a, want)
		}
	}
}

// A caller that has seen enough does not wait.
func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := serve(t, func(n int64, _, r *dns.Msg) {
		if n == 3 {
			cancel()
		}
		r.Response = false
	})
	var got flip.Answer
	flip.Watch(ctx, name, after, []flip.Server{{Node: "ns1", Address: address}}, func(a flip.Answer) { got = a })
	if got.Err != "no answer" {
		t.Errorf("%+v", got)
	}
}
