package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"
)

// srv asks a node for the masters of a datacenter: "PRIORITY TARGET:PORT", in
// order.
func srv(t *testing.T, at, datacenter string) []string {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion("_x-puppet._tcp."+datacenter+".example.net.", dns.TypeSRV)
	q.SetEdns0(1232, false)
	r, err := dns.Exchange(q, at)
	if err != nil {
		t.Error(err)
		return nil
	}
	var got []string
	for _, rr := range r.Answer {
		if rr, ok := rr.(*dns.SRV); ok {
			got = append(got, fmt.Sprintf("%03d %s:%d", rr.Priority, strings.TrimSuffix(rr.Target, "."), rr.Port))
		}
	}
	slices.Sort(got)
	return got
}

func TestPlayground(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()

	t.Run("state", func(t *testing.T) {
		want := state{Version: 1, Zone: "example.net", Targets: "host", Camaster: "m1.example.net", Dir: p.dir, CA: p.dir + "/ssl/certs/ca.pem", SSLDir: p.dir + "/ssl", Operator: "operator.example.net", PID: p.cmd.Process.Pid}
		for i, name := range []string{"ns1", "ns2"} {
			at := p.base + fmt.Sprint(i+1)
			want.Processes = append(want.Processes, process{
				Role: "node", Name: name, Host: name + ".example.net", Datacenter: "datacenter" + name[2:],
				Address: at + ":10053", Metrics: at + ":19153", Ready: at + ":18181",
				Admin: []string{"unix://" + p.dir + "/" + name + ".sock", "https://" + at + ":18153"}, Gossip: at + ":17946",
			})
		}
		for i, datacenter := range []string{"datacenter1", "datacenter1", "datacenter2", "datacenter2"} {
			name := fmt.Sprintf("m%d", i+1)
			m := process{
				Role: "master", Name: name, Host: name + ".example.net", Service: name + "." + datacenter + ".example.net",
				Datacenter: datacenter, Address: fmt.Sprintf("%s%d:18140", p.base, 11+i), CA: i%2 == 0,
				HostCRL: p.dir + "/" + name + "/crl.pem",
			}
			if m.CA {
				m.CADir = p.dir + "/" + name + "/ca"
			}
			want.Processes = append(want.Processes, m)
		}
		if diff := cmp.Diff(want, s, cmpopts.IgnoreFields(process{}, "PID", "Start")); diff != "" {
			t.Errorf("playground.json (-want +got):\n%s", diff)
		}
		for _, process := range s.Processes {
			if !alive(process.PID) || process.Start == "" {
				t.Errorf("%s: pid %d, start %q: want a running process", process.Name, process.PID, process.Start)
			}
			if group, err := syscall.Getpgid(process.PID); err != nil || group != process.PID {
				t.Errorf("%s (pid %d) is in the process group %d, %v: Ctrl-C would reach it", process.Name, process.PID, group, err)
			}
		}
	})

	t.Run("masters", func(t *testing.T) {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		for _, m := range s.Processes[2:] {
			for _, name := range []string{m.Host, m.Service, "m4.datacenter2.example.net", "puppet-camaster.example.net"} {
				if code, body := get(t, roots, m.Address, name, "/status/v1/simple"); code != 200 || body != "running" {
					t.Errorf("%s as %s: %d %q", m.Name, name, code, body)
				}
			}
			want := map[bool]int{true: 200, false: 404}[m.CA]
			if code, body := get(t, roots, m.Address, m.Host, "/status/v1/simple/ca"); code != want {
				t.Errorf("%s's CA: %d %q, want %d", m.Name, code, body, want)
			}
		}
	})

	first := []string{"010 m1.example.net:18140", "010 m2.example.net:18140", "020 m3.example.net:18140", "020 m4.example.net:18140"}
	second := []string{"010 m3.example.net:18140", "010 m4.example.net:18140", "020 m1.example.net:18140", "020 m2.example.net:18140"}
	t.Run("answers", func(t *testing.T) {
		for _, name := range []string{"ns1", "ns2"} {
			for datacenter, want := range map[string][]string{"datacenter1": first, "datacenter2": second} {
				if diff := cmp.Diff(want, srv(t, s.process(name).Address, datacenter)); diff != "" {
					t.Errorf("%s about %s (-want +got):\n%s", name, datacenter, diff)
				}
			}
		}
	})

	t.Run("kill a master and start it again", func(t *testing.T) {
		if out, err := p.ask("-start", "m2"); err == nil || !strings.Contains(out, "m2 runs (pid") {
			t.Errorf("-start of a running master: %v, %q", err, out)
		}
		before := s.process("m2").PID
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.says(fmt.Sprintf("m2 (pid %d) was killed by SIGKILL.", before))
		p.says("-start m2")
		if got := p.state().process("m2").PID; got != 0 {
			t.Errorf("the state says that m2 has pid %d", got)
		}
		killed := []string{first[0], first[2], first[3], "110 m2.example.net:18140"}
		for _, name := range []string{"ns1", "ns2"} {
			eventually(t, name+" lists m2 last", func() bool { return slices.Equal(srv(t, s.process(name).Address, "datacenter1"), killed) })
		}

		out, err := p.ask("-start", "m2")
		after := p.state().process("m2").PID
		if err != nil || after == 0 || after == before || out != fmt.Sprintf("m2 answers again (pid %d)\n", after) {
			t.Errorf("-start m2: %v, %q; pid was %d, is %d", err, out, before, after)
		}
		for _, name := range []string{"ns1", "ns2"} {
			eventually(t, name+" lists m2 first", func() bool { return slices.Equal(srv(t, s.process(name).Address, "datacenter1"), first) })
		}
	})

	t.Run("kill a node and start it again", func(t *testing.T) {
		if err := syscall.Kill(s.process("ns1").PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.says("ns1 (pid")
		p.says("Resolvers ask the other node now.")
		if out, err := p.ask("-start", "ns1"); err != nil {
			t.Errorf("-start ns1: %v, %q", err, out)
		}
		if diff := cmp.Diff(first, srv(t, s.process("ns1").Address, "datacenter1")); diff != "" {
			t.Errorf("ns1 (-want +got):\n%s", diff)
		}
	})

	if out, err := p.ask("-start", "m9"); err == nil || !strings.Contains(out, `no node or master "m9"`) {
		t.Errorf("-start m9: %v, %q", err, out)
	}

	s = p.state()
	if out, err := p.ask("-stop"); err != nil || !strings.Contains(out, "is stopped") {
		t.Errorf("-stop: %v, %q", err, out)
	}
	p.leavesNothing(s.Processes)
	if code := p.ends(); code != 0 {
		t.Errorf("the playground ended with %d, want 0", code)
	}
	if out, err := p.ask("-stop"); err != nil || !strings.Contains(out, "no playground runs in "+p.dir) {
		t.Errorf("-stop when none runs: %v, %q", err, out)
	}
	if out, err := p.ask("-start", "m2"); err == nil || !strings.Contains(out, "no playground runs in "+p.dir) {
		t.Errorf("-start when none runs: %v, %q", err, out)
	}
}

func get(t *testing.T, roots *x509.CertPool, address, name, path string) (int, string) {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
		DisableKeepAlives: true,
	}
	r, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + name + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(body)
}

// dig returns the number of records of the wanted type in the answer.
func dig(at, name, kind string) (int, error) {
	q := new(dns.Msg)
	if kind == "AXFR" {
		q.SetAxfr(dns.Fqdn(name))
		envelopes, err := new(dns.Transfer).In(q, at)
		n := 0
		if err == nil {
			for e := range envelopes {
				n += len(e.RR)
				err = e.Error
			}
		}
		return n, err
	}
	q.SetQuestion(dns.Fqdn(name), dns.StringToType[kind])
	r, err := dns.Exchange(q, at)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, rr := range r.Answer {
		if rr.Header().Rrtype == dns.StringToType[kind] {
			n++
		}
	}
	return n, nil
}

func TestTargetsService(t *testing.T) {
	t.Parallel()
	// A directory that a bare word of the Corefile could not name.
	p := startAt(t, t.TempDir()+"/with a space/run", freeBase(t), "-targets", "service", "-metrics-port", "0", "-ready-port", "0")
	s := p.up()
	if m := s.process("ns1"); m.Metrics != "" || m.Ready != "" || s.Targets != "service" {
		t.Errorf("metrics %q, ready %q, targets %q; want none, none, service", m.Metrics, m.Ready, s.Targets)
	}
	want := []string{
		"010 m3.datacenter2.example.net:18140", "010 m4.datacenter2.example.net:18140",
		"020 m1.datacenter1.example.net:18140", "020 m2.datacenter1.example.net:18140",
	}
	if diff := cmp.Diff(want, srv(t, s.process("ns2").Address, "datacenter2")); diff != "" {
		t.Errorf("ns2 (-want +got):\n%s", diff)
	}
	for _, d := range regexp.MustCompile(`dig @(\S+) -p (\d+) \+noall \+answer (\S+) (\S+)`).FindAllStringSubmatch(p.output.String(), -1) {
		if n, err := dig(net.JoinHostPort(d[1], d[2]), d[3], d[4]); err != nil || n == 0 {
			t.Errorf("%s: %d records, %v", d[0], n, err)
		}
	}
	if out, err := p.ask("-stop"); err != nil {
		t.Errorf("-stop: %v, %q", err, out)
	}
	p.leavesNothing(s.Processes)
}
