package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// gap is how many serial numbers a CA leaves out when it opens.
const gap = 1000

// standing is what a master's member says of its role and its CA.
type standing struct {
	Role struct {
		State  string
		Former bool
	}
	CA struct {
		Complete bool
		Hash     string
	}
}

// standing is what a node knows of a master; the zero value while it knows nothing that
// is fresh.
func (p *playground) standing(at, host string) standing {
	p.t.Helper()
	var all struct {
		Masters []struct {
			Host   string
			Member *struct {
				Fresh    bool
				Evidence standing
			}
		}
	}
	p.reads(at, &all, "masters")
	for _, m := range all.Masters {
		if strings.TrimSuffix(m.Host, ".") == host && m.Member != nil && m.Member.Fresh {
			return m.Member.Evidence
		}
	}
	return standing{}
}

// masterClient is an agent that asks one master, with a certificate or without.
func masterClient(t *testing.T, s state, m process, certificates ...tls.Certificate) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(read(t, s.CA))
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: m.Host, Certificates: certificates},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, m.Address)
		},
		DisableKeepAlives: true,
	}}
}

// sign submits a certificate request to a master, and returns the answer and the
// serial number of the certificate, nil if there is none.
func sign(t *testing.T, s state, m process, certname string) (answer string, serial *big.Int) {
	t.Helper()
	csr, _, err := stub.NewCSR(certname)
	if err != nil {
		t.Error(err)
		return "", nil
	}
	client, url := masterClient(t, s, m), "https://"+m.Host+"/puppet-ca/v1/"
	ask := func(method, path string, body []byte) (string, error) {
		request, err := http.NewRequest(method, url+path, bytes.NewReader(body))
		if err != nil {
			return "", err
		}
		response, err := client.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		content, err := io.ReadAll(response.Body)
		return string(content), err
	}
	answer, err = ask(http.MethodPut, "certificate_request/"+certname, csr)
	if err != nil {
		return err.Error(), nil
	}
	content, err := ask(http.MethodGet, "certificate/"+certname, nil)
	if err != nil {
		return err.Error(), nil
	}
	block, _ := pem.Decode([]byte(content))
	if block == nil {
		return answer, nil
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Error(err)
		return answer, nil
	}
	return answer, c.SerialNumber
}

// greatest is the greatest serial number in an inventory.
func greatest(t *testing.T, cadir string) int64 {
	t.Helper()
	var most int64
	for line := range strings.Lines(string(read(t, filepath.Join(cadir, "inventory.txt")))) {
		number, _, _ := strings.Cut(line, " ")
		n, err := strconv.ParseInt(number, 0, 64)
		if err != nil {
			t.Fatalf("inventory: %v", err)
		}
		most = max(most, n)
	}
	return most
}

// The camaster's host dies. One command makes another the camaster, within two seconds.
// The dead one comes back closed, signs nothing at any moment, and is a standby again when
// it is told so. Nothing runs beside this test, for it measures.
func TestFailover(t *testing.T) {
	p := start(t, "-members")
	s := p.up()
	m1, m3 := s.process("m1"), s.process("m3")
	for _, name := range nodes {
		if got := p.standing(name, m1.Host); got.Role.State != "open" || !got.CA.Complete {
			t.Errorf("%s says of m1: %+v, want it open", name, got)
		}
		if got := p.standing(name, m3.Host); got.Role.State != "standby" || !got.CA.Complete {
			t.Errorf("%s says of m3: %+v, want a standby", name, got)
		}
	}
	for i := range 3 {
		if body, serial := sign(t, s, m1, fmt.Sprintf("agent%d.example.net", i)); serial == nil {
			t.Fatalf("m1 does not sign: %s", body)
		}
	}
	if body, serial := sign(t, s, m3, "early.example.net"); serial != nil || !strings.Contains(body, "Permission denied") {
		t.Errorf("m3, a standby, has signed %v: %q", serial, body)
	}
	eventually(t, "m3 has what m1 has signed", func() bool {
		return string(read(t, m3.CADir+"/inventory.txt")) == string(read(t, m1.CADir+"/inventory.txt"))
	})
	for _, name := range nodes {
		before := p.standing(name, m1.Host).CA.Hash
		eventually(t, name+" knows that m3 has what m1 has", func() bool {
			now := p.standing(name, m1.Host).CA.Hash
			same := now == p.standing(name, m3.Host).CA.Hash && now == before
			before = now
			return same && now != ""
		})
	}

	// m1's host is gone: both at once.
	for _, name := range []string{"m1", "m1-member"} {
		if err := syscall.Kill(s.process(name).PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"m1", "m1-member"} {
		p.says(fmt.Sprintf("%s (pid %d) was killed by SIGKILL.", name, s.process(name).PID))
	}
	for _, name := range nodes {
		eventually(t, name+" lists m1 last", func() bool {
			return slices.Contains(srv(t, s.process(name).Address, "datacenter1"), "110 m1.example.net:18140")
		})
	}

	began := time.Now()
	a := p.ctl(p.socket("ns1"), "failover", "--to", m3.Host, "--reason", "drill")
	took := time.Since(began)
	t.Logf("failover took %v:\n%s%s", took.Round(time.Millisecond), a.stdout, a.stderr)
	if a.code != 0 {
		t.Fatalf("exit code %d", a.code)
	}
	if took > 2*time.Second {
		t.Errorf("failover took %v, want two seconds at the most", took)
	}
	for _, want := range []string{"m3.example.net", "CA", "DNS", "total"} {
		if !strings.Contains(a.stdout, want) {
			t.Errorf("the table does not have %q", want)
		}
	}
	if !regexp.MustCompile(`\d ?m?s\b`).MatchString(a.stdout) {
		t.Error("the table has no times")
	}
	for _, name := range nodes {
		if diff := cmp.Diff(everywhere(m3.Host), moved(s.process(name).Address)); diff != "" {
			t.Errorf("%s answers (-want +got):\n%s", name, diff)
		}
	}

	// What m1 has issued, replicated or not, is never issued again.
	old := greatest(t, m1.CADir)
	body, serial := sign(t, s, m3, "agent9.example.net")
	if serial == nil {
		t.Fatalf("m3 does not sign: %s", body)
	}
	if serial.Int64() <= old+gap {
		t.Errorf("m3 has signed with %d, and m1 had %d: want more than %d", serial, old, old+gap)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "m3", "dashboard")); err != nil {
		t.Errorf("the dashboard of m3 is not open: %v", err)
	}

	// m1 comes back, and somebody asks it all the time.
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan int)
	var signed atomic.Int64
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if _, serial := sign(t, s, m1, fmt.Sprintf("stray%d.example.net", n)); serial != nil {
				signed.Add(1)
			}
		}
		asked <- n
	}()
	p.again("m1")
	for _, name := range nodes {
		eventually(t, name+" knows that m1 is closed", func() bool {
			role := p.standing(name, m1.Host).Role
			return role.State == "closed" && role.Former
		})
	}
	cancel()
	if n := <-asked; signed.Load() != 0 {
		t.Errorf("m1 has signed %d of %d requests while it came back; its member says:\n%s", signed.Load(), n, read(t, p.dir+"/log/m1-member.log"))
	} else {
		t.Logf("m1 has signed none of %d requests while it came back", n)
	}
	if body, serial := sign(t, s, m1, "late.example.net"); serial != nil || !strings.Contains(body, "Permission denied") {
		t.Errorf("m1, closed, has signed %v: %q", serial, body)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "m1", "dashboard")); err == nil {
		t.Error("the dashboard of m1 is still open")
	}
	if a := p.ctl(p.socket("ns2"), "masters"); a.code != 0 || !shows(a.stdout, "m1.example.net", "closed") || !strings.Contains(a.stdout, "rejoin") {
		t.Errorf("puppetsrvctl masters does not say that m1 is closed and what to do: exit code %d\n%s%s", a.code, a.stdout, a.stderr)
	}

	if a := p.ctl(p.socket("ns2"), "rejoin", m1.Host); a.code != 0 {
		t.Fatalf("rejoin: exit code %d: %s%s", a.code, a.stdout, a.stderr)
	}
	for _, name := range nodes {
		eventually(t, name+" knows that m1 is a standby", func() bool {
			role := p.standing(name, m1.Host).Role
			return role.State == "standby" && !role.Former
		})
	}
	eventually(t, "m1 has what m3 has signed", func() bool {
		return string(read(t, m1.CADir+"/inventory.txt")) == string(read(t, m3.CADir+"/inventory.txt"))
	})
	if body, serial := sign(t, s, m1, "latest.example.net"); serial != nil || !strings.Contains(body, "Permission denied") {
		t.Errorf("m1, a standby, has signed %v: %q", serial, body)
	}
	if body, serial := sign(t, s, m3, "agent10.example.net"); serial == nil {
		t.Errorf("m3 does not sign any more: %s", body)
	}
	s = p.state()
	if out, err := p.ask("-stop"); err != nil {
		t.Errorf("-stop: %v, %q", err, out)
	}
	p.leavesNothing(s.Processes)
}

// shows reports whether some line has all of these words.
func shows(text string, words ...string) bool {
	for line := range strings.Lines(text) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return true
		}
	}
	return false
}

// A certificate that the camaster's CA revokes is refused by every master within three
// seconds, by its own CRL.
func TestRevocationReachesEveryMaster(t *testing.T) {
	p := start(t, "-members")
	s := p.up()
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.SSLDir, "certs", s.Operator+".pem"), filepath.Join(s.SSLDir, "private_keys", s.Operator+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	enters := func(m process) error {
		r, err := masterClient(t, s, m, pair).Get("https://" + m.Host + "/puppet/v3/node/" + s.Operator)
		if err == nil {
			r.Body.Close()
		}
		return err
	}
	masters := slices.DeleteFunc(slices.Clone(s.Processes), func(m process) bool { return m.Role != "master" })
	if len(masters) != 4 {
		t.Fatalf("%d masters", len(masters))
	}
	for _, m := range masters {
		if err := enters(m); err != nil {
			t.Errorf("%s before: %v", m.Name, err)
		}
	}
	// As `puppetserver ca revoke` on the camaster does: nothing of the playground helps
	// the CRL on its way.
	m1 := s.process("m1")
	own, err := tls.LoadX509KeyPair(filepath.Join(p.dir, "m1", "cert.pem"), filepath.Join(p.dir, "m1", "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPut, "https://"+m1.Host+"/puppet-ca/v1/certificate_status/"+s.Operator, strings.NewReader(`{"desired_state":"revoked"}`))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	response, err := masterClient(t, s, m1, own).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		t.Fatalf("revoking: %s", response.Status)
	}
	for _, m := range masters {
		eventually(t, "the host CRL of "+m.Name+" names it", func() bool { return revokes(t, read(t, m.HostCRL), pair.Leaf.SerialNumber) })
		took := time.Since(began)
		t.Logf("%s knows after %v", m.Name, took.Round(time.Millisecond))
		if took > 3*time.Second {
			t.Errorf("%s knows after %v, want three seconds at the most", m.Name, took)
		}
	}
	for _, m := range masters {
		if err := enters(m); err == nil {
			t.Errorf("%s lets the revoked certificate in", m.Name)
		}
	}
}

func revokes(t *testing.T, content []byte, serial *big.Int) bool {
	t.Helper()
	block, _ := pem.Decode(content)
	if block == nil {
		t.Fatalf("a host CRL is %q", content)
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
}

// The guide's story with members works as printed, in this order.
func TestGuideWithMembers(t *testing.T) {
	p := start(t, "-members")
	s := p.up()
	tried := p.followGuide()
	for _, want := range []string{
		"puppetsrvctl switchover --to m3.example.net", "switchover --to m1.example.net", "# m1 m1-member\n",
		"puppetsrvctl failover --to m3.example.net --reason drill\n", "-start m1", "puppetsrvctl masters\n", "puppetsrvctl rejoin m1.example.net\n", "-revoke operator.example.net",
	} {
		if !strings.Contains(tried, want) {
			t.Errorf("nothing that it says to try has %q:\n%s", want, tried)
		}
	}
	if got := p.camaster("ns2"); got.Host != "m3.example.net" {
		t.Errorf("the camaster is %+v", got)
	}
	var members []string
	for _, m := range s.Processes {
		if m.Role == "member" {
			members = append(members, fmt.Sprintf("%s %s %s %s %s", m.Name, m.Address, m.Gossip, m.Metrics, m.Admin))
		}
	}
	want := make([]string, 4)
	for i := range want {
		at := p.base + strconv.Itoa(11+i)
		want[i] = fmt.Sprintf("m%d-member %s:18154 %s:17946 %s:19153 [unix://%s/m%[1]d.sock]", i+1, at, at, at, p.dir)
	}
	if diff := cmp.Diff(want, members); diff != "" {
		t.Errorf("members in playground.json (-want +got):\n%s", diff)
	}
}
