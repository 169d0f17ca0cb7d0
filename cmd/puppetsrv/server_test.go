package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/node"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// patience bounds waiting for an event that must come.
const patience = 20 * time.Second

// masters are m1 and m2 in datacenter1, m3 and m4 in datacenter2, all on one
// loopback address of each.
type masters struct {
	t    *testing.T
	ca   *stub.CA
	id   *stub.Identity
	dir  string
	stub [4]*stub.Master
}

func newMasters(t *testing.T) *masters {
	t.Helper()
	m := &masters{t: t, dir: t.TempDir()}
	var err error
	if m.ca, err = stub.NewCA("Puppet CA"); err != nil {
		t.Fatal(err)
	}
	o := stub.IssueOptions{CommonName: "m1.example.net"}
	for i := range m.stub {
		o.DNSNames = append(o.DNSNames, fmt.Sprintf("m%d.example.net", i+1), fmt.Sprintf("m%d.datacenter%d.example.net", i+1, 1+i/2))
	}
	if m.id, err = m.ca.Issue(o); err != nil {
		t.Fatal(err)
	}
	for i := range m.stub {
		m.start(i, "127.0.0.1:0")
	}
	m.write("ca.pem", m.ca.PEM())
	m.write("example.net.zone", []byte(`$ORIGIN example.net.
$TTL 300
@    SOA ns1 hostmaster 1 1800 600 1209600 3600
@    NS  ns1
@    NS  ns2
ns1  A   192.0.2.1
ns2  A   192.0.2.2
ns2  AAAA 2001:db8::2
www  A   192.0.2.80
`))
	return m
}

// ssl is a directory as Puppet's ssldir, for a host.
func (m *masters) ssl(host string) string {
	m.t.Helper()
	id, err := m.ca.Issue(stub.IssueOptions{CommonName: host})
	if err != nil {
		m.t.Fatal(err)
	}
	list, err := m.ca.CRL()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, d := range []string{"ssl/certs", "ssl/private_keys"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o700); err != nil {
			m.t.Fatal(err)
		}
	}
	m.write("ssl/certs/ca.pem", m.ca.PEM())
	m.write("ssl/certs/"+host+".pem", id.CertPEM)
	m.write("ssl/private_keys/"+host+".pem", id.KeyPEM)
	m.write("ssl/crl.pem", list)
	return filepath.Join(m.dir, "ssl")
}

func (m *masters) write(name string, data []byte) string {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

func (m *masters) start(i int, addr string) {
	m.t.Helper()
	s, err := stub.NewMaster(addr, m.id)
	if err != nil {
		m.t.Fatal(err)
	}
	m.stub[i] = s
	m.t.Cleanup(func() { s.Close() })
}

// block is the plugin's block, with more properties at its end.
func (m *masters) block(more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "puppetsrv {\nzonefile %[1]s/example.net.zone\ntls %[1]s/ca.pem\ndatacenter datacenter1\ndatacenter datacenter2\n", m.dir)
	fmt.Fprintf(&b, "camaster puppet-camaster m1.example.net\n")
	for i, s := range m.stub {
		ca := ""
		if i%2 == 0 {
			ca = "ca"
		}
		fmt.Fprintf(&b, "master m%d.example.net datacenter%d port %d %s address 127.0.0.1\n", i+1, 1+i/2, s.Addr().Port(), ca)
	}
	for _, line := range more {
		b.WriteString(line + "\n")
	}
	return b.String() + "}\n"
}

// corefile is one server block on a port of its own.
func (m *masters) corefile(more ...string) string {
	return "example.net:0 {\nbind 127.0.0.1\n" + m.block(more...) + "}\n"
}

// server is a running instance.
type server struct {
	t    *testing.T
	inst *caddy.Instance
}

func input(corefile string) caddy.Input {
	return caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"}
}

func serve(t *testing.T, corefile string) *server {
	t.Helper()
	inst, err := caddy.Start(input(corefile))
	if err != nil {
		t.Fatalf("%v\n%s", err, corefile)
	}
	s := &server{t, inst}
	t.Cleanup(s.stop)
	return s
}

// stop ends the instance as a signal does: callbacks first.
func (s *server) stop() {
	if s.inst == nil {
		return
	}
	s.inst.ShutdownCallbacks()
	if err := s.inst.Stop(); err != nil {
		s.t.Error(err)
	}
	s.inst.Wait()
	s.inst = nil
}

func (s *server) reload(corefile string) error {
	inst, err := s.inst.Restart(input(corefile))
	s.inst = inst
	return err
}

// addr returns where server i listens.
func (s *server) udp(i int) string { return s.inst.Servers()[i].LocalAddr().String() }
func (s *server) tcp(i int) string { return s.inst.Servers()[i].Addr().String() }

// ask sends one question to server 0 by UDP.
func (s *server) ask(name string, qtype uint16) *dns.Msg {
	s.t.Helper()
	return ask(s.t, "udp", s.udp(0), name, qtype)
}

func ask(t *testing.T, network, addr, name string, qtype uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	c := &dns.Client{Net: network, Timeout: patience}
	r, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s %s at %s: %v", name, dns.TypeToString[qtype], addr, err)
	}
	return r
}

// tiers is what an SRV answer lists, as in "m1@10 m2@10".
func tiers(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		if srv, ok := rr.(*dns.SRV); ok {
			out = append(out, fmt.Sprintf("%s@%d", strings.SplitN(srv.Target, ".", 2)[0], srv.Priority))
		}
	}
	return strings.Join(out, " ")
}

const dc1, dc2 = "_x-puppet._tcp.datacenter1.example.net.", "_x-puppet._tcp.datacenter2.example.net."

// until asks until the tiers are as wanted.
func (s *server) until(name, want string) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for got := ""; ; {
		if got = tiers(s.ask(name, dns.TypeSRV)); got == want {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s lists %q, want %q", name, got, want)
		}
	}
}

func TestAnswersFollowHealth(t *testing.T) {
	m := newMasters(t)
	s := serve(t, m.corefile())
	s.until(dc1, "m1@10 m2@10 m3@20 m4@20")
	s.until(dc2, "m3@10 m4@10 m1@20 m2@20")
	addr := m.stub[0].Addr().String()
	m.stub[0].Close()
	s.until(dc1, "m2@10 m3@20 m4@20 m1@110")
	s.until(dc2, "m3@10 m4@10 m2@20 m1@120")
	if r := s.ask("puppet-camaster.example.net.", dns.TypeA); len(r.Answer) != 2 || r.Answer[0].(*dns.CNAME).Target != "m1.example.net." {
		t.Errorf("the camaster moved by itself: %v", r.Answer)
	}
	m.start(0, addr)
	s.until(dc1, "m1@10 m2@10 m3@20 m4@20")
	m.stub[2].SetStatus(503, "starting")
	s.until(dc1, "m1@10 m2@10 m4@20 m3@120")
}

func TestEveryListener(t *testing.T) {
	m := newMasters(t)
	// Two blocks, three zones, UDP and TCP, IPv4 and IPv6, several sockets; the
	// first two blocks are one configuration.
	corefile := "example.net:0 {\nbind 127.0.0.1 ::1\nmultisocket 2\n" + m.block() + "}\n" +
		"example.net:0 {\nbind 127.0.0.2\n" + m.block() + "}\n" +
		"example.org:0 {\nbind 127.0.0.1\n" + strings.Replace(m.block(), "zonefile "+m.dir+"/example.net.zone", "ns ns1.example.net", 1) + "}\n"
	s := serve(t, corefile)
	for i := range s.inst.Servers() {
		for _, network := range []string{"udp", "tcp"} {
			addr := s.udp(i)
			if network == "tcp" {
				addr = s.tcp(i)
			}
			zone := "example.net."
			if r := ask(t, network, addr, zone, dns.TypeSOA); r.Rcode == dns.RcodeRefused {
				zone = "example.org."
			}
			if got := tiers(ask(t, network, addr, "_x-puppet._tcp.datacenter1."+zone, dns.TypeSRV)); !strings.HasPrefix(got, "m1@") {
				t.Errorf("%s %s: %q", network, addr, got)
			}
		}
	}
}

// swarm asks all the time and counts what must not be.
type swarm struct {
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	n    int
	bad  []string
}

// attack starts clients that ask for the same name until they are stopped. check
// returns what is wrong with an answer, or "".
func attack(addr, name string, clients int, check func(*dns.Msg) string) *swarm {
	w := &swarm{stop: make(chan struct{})}
	for range clients {
		w.wg.Go(func() {
			conn, err := net.Dial("udp", addr)
			if err != nil {
				w.report(err.Error())
				return
			}
			c := &dns.Conn{Conn: conn, UDPSize: 4096}
			defer c.Close()
			for {
				select {
				case <-w.stop:
					return
				default:
				}
				q := new(dns.Msg)
				q.SetQuestion(name, dns.TypeSRV)
				c.SetDeadline(time.Now().Add(patience))
				if err := c.WriteMsg(q); err != nil {
					w.report("lost: " + err.Error())
					return
				}
				r, err := c.ReadMsg()
				switch {
				case err != nil:
					w.report("lost: " + err.Error())
					return
				case r.Id != q.Id:
					w.report("an answer to another question")
				default:
					if what := check(r); what != "" {
						w.report(what)
					}
				}
				w.mu.Lock()
				w.n++
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *swarm) report(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bad = append(w.bad, what)
}

// end stops the clients and fails the test for anything that was wrong.
func (w *swarm) end(t *testing.T) {
	t.Helper()
	close(w.stop)
	w.wg.Wait()
	t.Logf("%d answers", w.n)
	if w.n == 0 {
		t.Error("nothing was asked")
	}
	for i, what := range w.bad {
		if i == 5 {
			t.Errorf("... and %d more", len(w.bad)-i)
			break
		}
		t.Error(what)
	}
}

// Under load, over many reloads with changed and unchanged configurations and
// failed ones, no answer is lost, fails, is empty or lists a dead master first.
func TestReloadUnderLoad(t *testing.T) {
	m := newMasters(t)
	state := "state " + filepath.Join(m.dir, "state")
	s := serve(t, m.corefile(state))
	m.stub[0].Close()
	s.until(dc1, "m2@10 m3@20 m4@20 m1@110")
	serial := s.ask("example.net.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial
	if err := s.reload(m.corefile(state)); err != nil {
		t.Fatal(err)
	}
	if after := s.ask("example.net.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial; after != serial {
		t.Errorf("nothing changed and the serial went from %d to %d", serial, after)
	}
	w := attack(s.udp(0), dc1, 4, func(r *dns.Msg) string {
		got := tiers(r)
		switch {
		case r.Rcode != dns.RcodeSuccess || !r.Authoritative || r.Truncated:
			return r.MsgHdr.String()
		case got != "m2@10 m3@20 m4@20 m1@110" && got != "m2@10 m3@30 m4@30 m1@110":
			return "lists " + got
		}
		return ""
	})
	serials := map[uint32]bool{}
	newest := serial
	for i := range 60 {
		now := s.ask("example.net.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial
		if int32(now-newest) < 0 {
			t.Errorf("the serial went back from %d to %d", newest, now)
		}
		newest, serials[now] = now, true
		var err error
		switch i % 4 {
		case 0:
			err = s.reload(m.corefile(state))
		case 1:
			err = s.reload(m.corefile(state, "priority 10 30"))
		case 2:
			if s.reload(m.corefile(state, "camaster x y")) == nil {
				t.Error("a wrong Corefile was loaded")
			}
		case 3: // fails after OnStartup: the port of the second block is taken
			taken := m.corefile(state, "ttl 7") + "example.org:" + fmt.Sprint(m.stub[1].Addr().Port()) + " {\nbind 127.0.0.1\nwhoami\n}\n"
			if s.reload(taken) == nil {
				t.Error("a Corefile with a taken port was loaded")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.end(t)
	if len(serials) < 3 {
		t.Errorf("only %d serials over changed configurations", len(serials))
	}
}

// CoreDNS calls OnRestartFailed for any error in a reload: also for one of another
// plugin before anything of ours has begun, and for one of the old instance when
// the new one already serves. The runtime that serves goes on in either case.
func TestAReloadThatFailsElsewhere(t *testing.T) {
	for name, arrange := range map[string]func(*caddy.Instance, func() error){
		"before": func(i *caddy.Instance, f func() error) { i.OnRestart = append([]func() error{f}, i.OnRestart...) },
		"after":  func(i *caddy.Instance, f func() error) { i.OnShutdown = append([]func() error{f}, i.OnShutdown...) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMasters(t)
			s := serve(t, m.corefile())
			s.until(dc1, "m1@10 m2@10 m3@20 m4@20")
			old, addr := s.inst, s.udp(0)
			arrange(old, func() error { return errors.New("the old one cannot") })
			if err := s.reload(m.corefile("ttl 7")); err == nil {
				t.Fatal("the reload did not fail")
			}
			if name == "after" { // caddy gives back the old instance; the new one serves
				s.inst = caddy.Instances()[len(caddy.Instances())-1]
			}
			if n := len(node.All()); n != 1 {
				t.Errorf("%d runtimes are left, want the one that serves", n)
			}
			m.stub[0].Close()
			for deadline := time.Now().Add(patience); ; {
				if tiers(ask(t, "udp", addr, dc1, dns.TypeSRV)) == "m2@10 m3@20 m4@20 m1@110" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("verdicts do not reach the answers any more")
				}
			}
		})
	}
}

// A changed zone file is served without a reload; a broken one changes nothing.
func TestZoneFileChanges(t *testing.T) {
	m := newMasters(t)
	s := serve(t, m.corefile("state "+m.dir+"/state"))
	path := filepath.Join(m.dir, "example.net.zone")
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	serial := func() uint32 { return s.ask("example.net.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial }
	before := serial()
	m.write("example.net.zone", append(old, "new A 192.0.2.99\n"...))
	for start := time.Now(); len(s.ask("new.example.net.", dns.TypeA).Answer) == 0; {
		if time.Since(start) > patience {
			t.Fatal("the new record is not served")
		}
	}
	if after := serial(); after != before+1 {
		t.Errorf("the serial went from %d to %d", before, after)
	}
	m.write("example.net.zone", []byte("@ SOA nothing right"))
	m.stub[0].Close()
	s.until(dc1, "m2@10 m3@20 m4@20 m1@110")
	m.write("example.net.zone", append(old, "newer A 192.0.2.98\n"...))
	for start := time.Now(); len(s.ask("newer.example.net.", dns.TypeA).Answer) == 0; {
		if time.Since(start) > patience {
			t.Fatal("the repaired file is not served")
		}
	}
	if got := tiers(s.ask(dc1, dns.TypeSRV)); got != "m2@10 m3@20 m4@20 m1@110" {
		t.Errorf("lists %q", got)
	}
}

// A server that is being stopped answers until it is gone.
func TestAnswersWhileStopping(t *testing.T) {
	m := newMasters(t)
	s := serve(t, m.corefile())
	m.stub[0].Close()
	s.until(dc1, "m2@10 m3@20 m4@20 m1@110")
	s.inst.ShutdownCallbacks() // as SIGTERM does, before the servers are stopped
	if got := tiers(s.ask(dc1, dns.TypeSRV)); got != "m2@10 m3@20 m4@20 m1@110" {
		t.Errorf("after the callbacks: %q", got)
	}
}

func TestTransfer(t *testing.T) {
	m := newMasters(t)
	// A secondary that is told of changes.
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	notified := make(chan string, 100)
	mux := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Opcode == dns.OpcodeNotify {
			notified <- r.Question[0].Name
		}
		reply := new(dns.Msg)
		reply.SetReply(r)
		w.WriteMsg(reply)
	})
	secondary := &dns.Server{PacketConn: pc, Handler: mux, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	go secondary.ActivateAndServe()
	defer secondary.Shutdown()

	corefile := strings.Replace(m.corefile(), "puppetsrv {", "transfer {\nto * "+pc.LocalAddr().String()+"\n}\npuppetsrv {", 1)
	s := serve(t, corefile)
	first := transfer(t, s.tcp(0), 0)
	soa := first[0].(*dns.SOA)
	if last, ok := first[len(first)-1].(*dns.SOA); !ok || last.Serial != soa.Serial {
		t.Fatalf("the transfer does not end with its SOA: %v", first[len(first)-1])
	}
	text := fmt.Sprint(first)
	for _, want := range []string{"_x-puppet._tcp.datacenter1.example.net.", "_x-puppet-ca._tcp.datacenter2.example.net.", "puppet-camaster.example.net.", "www.example.net.", "2001:db8::2"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not transferred", want)
		}
	}
	for _, serial := range []uint32{soa.Serial, soa.Serial + 1} {
		if rrs := transfer(t, s.tcp(0), serial); len(rrs) != 1 {
			t.Errorf("IXFR from %d, serving %d: %d records, want the SOA alone", serial, soa.Serial, len(rrs))
		}
	}
	for _, when := range []string{"the start", "a change"} {
		if when == "a change" {
			m.stub[0].Close()
		}
		select {
		case zone := <-notified:
			if zone != "example.net." {
				t.Errorf("NOTIFY for %s", zone)
			}
		case <-time.After(patience):
			t.Fatalf("no NOTIFY after %s", when)
		}
	}
	if rrs := transfer(t, s.tcp(0), soa.Serial); len(rrs) != len(first) || int32(rrs[0].(*dns.SOA).Serial-soa.Serial) <= 0 {
		t.Errorf("IXFR from the old serial: %d records, first %v", len(rrs), rrs[0])
	}
}

// Nobody's secondary: a NOTIFY is answered as such, and not logged each time.
func TestNotifyToUs(t *testing.T) {
	m := newMasters(t)
	s := serve(t, m.corefile())
	q := new(dns.Msg)
	q.SetNotify("example.net.")
	r, _, err := new(dns.Client).Exchange(q, s.udp(0))
	if err != nil || r.Rcode != dns.RcodeNotAuth {
		t.Errorf("%v, %v", r, err)
	}
}

// transfer does an AXFR, or from a serial an IXFR.
func transfer(t *testing.T, addr string, serial uint32) []dns.RR {
	t.Helper()
	q := new(dns.Msg)
	if serial == 0 {
		q.SetAxfr("example.net.")
	} else {
		q.SetIxfr("example.net.", serial, "ns1.example.net.", "hostmaster.example.net.")
	}
	ch, err := new(dns.Transfer).In(q, addr)
	if err != nil {
		t.Fatal(err)
	}
	var rrs []dns.RR
	for e := range ch {
		if e.Error != nil {
			t.Fatal(e.Error)
		}
		rrs = append(rrs, e.RR...)
	}
	if len(rrs) == 0 {
		t.Fatal("an empty transfer")
	}
	return rrs
}

// freePort is an address that nothing listens on.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func stubNames(names ...string) stub.IssueOptions {
	return stub.IssueOptions{CommonName: names[0], DNSNames: names}
}
