package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/miekg/dns"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// test runs the black-box tests against the binary.
func test(ctx context.Context, r *report, dir, binary string) {
	r.check("-plugins lists puppetsrv", checkPlugins(ctx, dir, binary))
	c, err := newConfiguration(dir)
	if !r.check("start four stub masters", err) {
		return
	}
	defer c.close()
	corefile, err := c.write("Corefile", c.block(masterName(0)))
	if !r.check("write the Corefile", err) {
		return
	}
	upstream, err := startUpstream(at(c.forward))
	if !r.check("start a server to forward to", err) {
		return
	}
	defer upstream.Shutdown()

	s, err := startServer(ctx, dir, binary, "-conf", corefile)
	if !r.check("start CoreDNS", err) {
		return
	}
	failed := r.failed
	t := &blackbox{ctx: ctx, c: c, s: s}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"ready, after every master was probed", t.ready},
		{"_x-puppet of datacenter1: m1, m2 at 10, m3, m4 at 20", func() error { return t.tiers("datacenter1", 10, 10, 20, 20) }},
		{"_x-puppet of datacenter2: m3, m4 at 10, m1, m2 at 20", func() error { return t.tiers("datacenter2", 20, 20, 10, 10) }},
		{"_x-puppet-ca is the camaster alone", func() error { return t.ca(masterName(0)) }},
		{"the camaster CNAME", func() error { return t.camaster(masterName(0)) }},
		{"an unknown name is NXDOMAIN with SOA, the apex has one", t.negative},
		{"transfer: AXFR of the rendered zone", t.axfr},
		{"file serves its zone in the same server block", t.file},
		{"forward serves the rest in the same server block", t.forwarded},
		{"whoami serves its zone in another server block", t.whoami},
		{"prometheus: coredns_puppetsrv_ metrics, nothing answered by cache", t.metrics},
		{"a dead master is listed last", t.death},
		{"SIGUSR1: the new Corefile's camaster, the old evidence", t.reload},
		{"SIGUSR1 with a wrong Corefile changes nothing", t.badReload},
		{"a master that is back is listed as before", t.recovery},
		{"SIGTERM ends it", s.stop},
	} {
		r.check(step.name, step.run())
	}
	r.check("a wrong Corefile is refused at start, with file and line", t.refused(dir, binary))
	if r.failed > failed {
		fmt.Fprintf(r.out, "     the server's log:\n%s\n", tail(s.log.String(), 40))
	}
	_ = s.cmd.Process.Kill() // it has ended, unless a step above failed
	<-s.exited
}

func checkPlugins(ctx context.Context, dir, binary string) error {
	out, code, err := runToEnd(ctx, dir, binary, "-plugins")
	if err != nil {
		return err
	}
	for _, name := range []string{"puppetsrv", "kubernetes", "file"} { // kubernetes: it is the whole CoreDNS
		if code != 0 || !slices.Contains(strings.Fields(out), name) {
			return fmt.Errorf("exit code %d, no %s in\n%s", code, name, tail(out, 100))
		}
	}
	return nil
}

// forwardedName is what the upstream server knows.
const forwardedName = "www.example.edu."

// startUpstream serves what CoreDNS forwards.
func startUpstream(addr string) (*dns.Server, error) {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("starting a server to forward to: %w", err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Name == forwardedName && q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{
				Hdr: dns.RR_Header{Name: forwardedName, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
				A:   net.IPv4(192, 0, 2, 81),
			}}
		}
		_ = w.WriteMsg(m) // a client that has left is no error here
	})}
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	select {
	case <-started:
		return s, nil
	case err := <-ended:
		return nil, fmt.Errorf("starting a server to forward to: %w", err)
	}
}

// blackbox is one server under test. Its methods are the steps, in order.
type blackbox struct {
	ctx context.Context
	c   *configuration
	s   *server
}

func (t *blackbox) ask(name string, qtype uint16, rcode int) (*dns.Msg, error) {
	return ask(t.ctx, "udp", at(t.c.dns), name, qtype, rcode)
}

func (t *blackbox) ready() error {
	return eventually(t.ctx, func() error {
		select {
		case <-t.s.exited:
			return fmt.Errorf("CoreDNS has ended: %v", t.s.cmd.ProcessState)
		default:
		}
		_, err := get(t.ctx, "http://"+at(t.c.ready)+"/ready")
		return err
	})
}

// tiers wants m1 to m4 at these priorities, in the order of the tiers.
func (t *blackbox) tiers(datacenter string, priorities ...uint16) error {
	name := "_x-puppet._tcp." + datacenter + ".example.net."
	for _, network := range []string{"udp", "tcp"} {
		m, err := ask(t.ctx, network, at(t.c.dns), name, dns.TypeSRV, dns.RcodeSuccess)
		if err != nil {
			return err
		}
		if !m.Authoritative {
			return errors.New("AA is not set")
		}
		if len(m.Answer) != len(priorities) {
			return fmt.Errorf("%d answers, want %d:\n%v", len(m.Answer), len(priorities), m)
		}
		got := make(map[string]uint16)
		var last uint16
		for _, rr := range m.Answer {
			srv, ok := rr.(*dns.SRV)
			if !ok {
				return fmt.Errorf("%v is no SRV record", rr)
			}
			if srv.Priority < last {
				return fmt.Errorf("the tiers are out of order:\n%v", m)
			}
			last = srv.Priority
			got[srv.Target] = srv.Priority
		}
		for i, want := range priorities {
			if host := masterName(i) + "."; got[host] != want {
				return fmt.Errorf("%s has priority %d, want %d", host, got[host], want)
			}
		}
		if len(m.Extra) < len(priorities) {
			return fmt.Errorf("no address for every target in the additional section:\n%v", m)
		}
	}
	return nil
}

func (t *blackbox) ca(host string) error {
	m, err := t.ask("_x-puppet-ca._tcp.datacenter1.example.net", dns.TypeSRV, dns.RcodeSuccess)
	if err != nil {
		return err
	}
	if len(m.Answer) != 1 || m.Answer[0].(*dns.SRV).Target != host+"." {
		return fmt.Errorf("answer %v, want %s alone", m.Answer, host)
	}
	return nil
}

func (t *blackbox) camaster(host string) error {
	m, err := t.ask("puppet-camaster.example.net", dns.TypeA, dns.RcodeSuccess)
	if err != nil {
		return err
	}
	if len(m.Answer) != 2 {
		return fmt.Errorf("answer %v, want a CNAME and an address", m.Answer)
	}
	cname, ok := m.Answer[0].(*dns.CNAME)
	if !ok || cname.Target != host+"." {
		return fmt.Errorf("answer %v, want a CNAME to %s", m.Answer, host)
	}
	return nil
}

func (t *blackbox) negative() error {
	m, err := t.ask("no-such-name.example.net", dns.TypeA, dns.RcodeNameError)
	if err != nil {
		return err
	}
	if len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA {
		return fmt.Errorf("authority %v, want the SOA", m.Ns)
	}
	m, err = t.ask("example.net", dns.TypeSOA, dns.RcodeSuccess)
	if err == nil && len(m.Answer) != 1 {
		err = fmt.Errorf("answer %v, want the SOA", m.Answer)
	}
	return err
}

func (t *blackbox) axfr() error {
	q := new(dns.Msg)
	q.SetAxfr("example.net.")
	envelopes, err := new(dns.Transfer).In(q, at(t.c.dns))
	if err != nil {
		return fmt.Errorf("asking for a transfer: %w", err)
	}
	var rrs []dns.RR
	for e := range envelopes {
		err = errors.Join(err, e.Error)
		rrs = append(rrs, e.RR...)
	}
	if err != nil {
		return fmt.Errorf("transfer: %w", err)
	}
	count := make(map[uint16]int)
	for _, rr := range rrs {
		count[rr.Header().Rrtype]++
	}
	// SRV: for each datacenter three times the tiers, and the camaster twice.
	if count[dns.TypeSOA] != 2 || count[dns.TypeSRV] != 2*(3*4+2) || count[dns.TypeCNAME] != 1 || count[dns.TypeA] != 5 {
		return fmt.Errorf("%d SOA, %d SRV, %d CNAME, %d A; want 2, 28, 1, 5", count[dns.TypeSOA], count[dns.TypeSRV], count[dns.TypeCNAME], count[dns.TypeA])
	}
	return nil
}

func (t *blackbox) file() error { return t.address("www.example.org", "192.0.2.80") }

func (t *blackbox) forwarded() error { return t.address(forwardedName, "192.0.2.81") }

func (t *blackbox) address(name, want string) error {
	m, err := t.ask(name, dns.TypeA, dns.RcodeSuccess)
	if err != nil {
		return err
	}
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != want {
		return fmt.Errorf("answer %v, want %s", m.Answer, want)
	}
	return nil
}

// whoami answers in the additional section alone.
func (t *blackbox) whoami() error {
	m, err := t.ask("anything.example.com", dns.TypeA, dns.RcodeSuccess)
	if err == nil && len(m.Extra) == 0 {
		err = fmt.Errorf("nothing in the additional section:\n%v", m)
	}
	return err
}

func (t *blackbox) metrics() error {
	page, err := get(t.ctx, "http://"+at(t.c.metrics)+"/metrics")
	if err != nil {
		return err
	}
	for _, want := range []string{
		`coredns_puppetsrv_master_up{datacenter="datacenter1",master="m1.example.net",zone="example.net."} 1`,
		`coredns_puppetsrv_answers_total{kind="tiers",`,
		`coredns_puppetsrv_probe_duration_seconds_count`,
		`coredns_puppetsrv_zone_serial{zone="example.net."}`,
		`coredns_dns_responses_total{`,
	} {
		if !strings.Contains(page, want) {
			return fmt.Errorf("no %s", want)
		}
	}
	// Only names of the plugin's zone were asked for more than once by now: an
	// answer from the cache would outlive a verdict.
	if strings.Contains(page, "coredns_cache_hits_total{") {
		return errors.New("the cache has answered")
	}
	return nil
}

func (t *blackbox) death() error {
	t.c.masters[0].Close()
	return eventually(t.ctx, func() error {
		return errors.Join(t.tiers("datacenter1", 110, 10, 20, 20), t.tiers("datacenter2", 120, 20, 10, 10))
	})
}

func (t *blackbox) reload() error {
	if _, err := t.c.write("Corefile", t.c.block(masterName(2))); err != nil {
		return err
	}
	if err := t.signal("Reloading complete"); err != nil {
		return err
	}
	// At once: what was known of the masters is not forgotten.
	if err := t.tiers("datacenter1", 110, 10, 20, 20); err != nil {
		return err
	}
	return errors.Join(t.ca(masterName(2)), t.camaster(masterName(2)))
}

func (t *blackbox) badReload() error {
	path, err := t.c.write("Corefile", t.badBlock())
	if err != nil {
		return err
	}
	if err := t.signal(badPlace(path)); err != nil {
		return err
	}
	return errors.Join(t.tiers("datacenter1", 110, 10, 20, 20), t.camaster(masterName(2)), t.file(), t.whoami())
}

// signal has the Corefile read again and waits for a line of the log.
func (t *blackbox) signal(line string) error {
	if strings.Contains(t.s.log.String(), line) {
		return fmt.Errorf("the log had %q before", line)
	}
	if err := t.s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return fmt.Errorf("sending SIGUSR1: %w", err)
	}
	return eventually(t.ctx, func() error {
		if !strings.Contains(t.s.log.String(), line) {
			return fmt.Errorf("no %q in the log", line)
		}
		return nil
	})
}

func (t *blackbox) recovery() error {
	m, err := stub.NewMaster(t.c.masters[0].Addr().String(), t.c.identities[0])
	if err != nil {
		return err
	}
	t.c.masters[0] = m
	return eventually(t.ctx, func() error { return t.tiers("datacenter1", 10, 10, 20, 20) })
}

// badBlock has a mistake in its camaster line.
func (t *blackbox) badBlock() string { return t.c.block("m9.example.net") }

// badPlace is where the mistake of badBlock stands.
func badPlace(path string) string {
	return path + ":19 - Error during parsing: camaster m9.example.net"
}

func (t *blackbox) refused(dir, binary string) error {
	path, err := t.c.write("Corefile.wrong", t.badBlock())
	if err != nil {
		return err
	}
	out, code, err := runToEnd(t.ctx, dir, binary, "-conf", path)
	if err != nil {
		return err
	}
	if code <= 0 {
		return fmt.Errorf("exit code %d, want another", code)
	}
	if want := badPlace(path); !strings.Contains(out, want) {
		return fmt.Errorf("no %q in\n%s", want, tail(out, 10))
	}
	return nil
}
