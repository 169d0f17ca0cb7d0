package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/settings"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// shared is a buffer that a daemon writes to while a test reads it.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// prepared has what a member needs on it.
func prepared(t *testing.T) (config string, rewrite func(old, new string)) {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca, err := stub.NewCA("Puppet CA: m1.example.net")
	if err != nil {
		t.Fatal(err)
	}
	id, err := ca.Issue(stub.IssueOptions{CommonName: "m1.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	crl, err := ca.CRL()
	if err != nil {
		t.Fatal(err)
	}
	free := func() int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	text := fmt.Sprintf(`layout: debian
certname: m1.example.net
datacenter: datacenter1
nodes: [ns1.example.net]
gossip: {bind: "127.0.0.1:%d", join: ["127.0.0.1:1"], key: %s, profile: local}
listen: 127.0.0.1:%d
state: %s
socket: %s
puppet: {cert: %s, key: %s, ca: %s, crl: %s, environments: %s}
interval: 500ms
metrics: 127.0.0.1:%d
`, free(), put("gossip.key", []byte(base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))+"\n")), free(),
		filepath.Join(dir, "state"), filepath.Join(dir, "s"),
		put("cert.pem", id.CertPEM), put("key.pem", id.KeyPEM), put("ca.pem", ca.PEM()), put("crl.pem", crl), dir, free())
	config = put("member.yaml", []byte(text))
	return config, func(old, new string) {
		data, err := os.ReadFile(config)
		if err != nil || !strings.Contains(string(data), old) {
			t.Fatalf("%q is not in %s: %v", old, config, err)
		}
		put("member.yaml", []byte(strings.Replace(string(data), old, new, 1)))
	}
}

// exported wants each metric of a running member to be in the man page.
func exported(t *testing.T, config string) {
	t.Helper()
	s, err := settings.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get("http://" + s.Metrics.String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^# TYPE (puppetsrv_member_\w+)`).FindAllSubmatch(text, -1)
	for _, m := range found {
		if !bytes.Contains(page, m[1]) {
			t.Errorf("the man page lacks %s", m[1])
		}
	}
	for _, want := range []string{"puppetsrv_member_crl_failures_total", "puppetsrv_member_crl_sync_age_seconds", "puppetsrv_member_evidence_age_seconds"} {
		if !bytes.Contains(text, []byte("\n"+want+" ")) {
			t.Errorf("%s is not exported among %d", want, len(found))
		}
	}
}

// systemd hears that the daemon is ready, lives, reloads and stops; a broken file
// changes nothing.
func TestDaemon(t *testing.T) {
	config, rewrite := prepared(t)
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", "")
	os.Unsetenv("WATCHDOG_PID")
	hears := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		l.SetReadDeadline(time.Now().Add(time.Minute))
		for {
			n, err := l.Read(buf)
			if err != nil {
				t.Fatalf("systemd has not heard %s: %v", want, err)
			}
			if strings.Contains(string(buf[:n]), want) {
				return
			}
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, log shared
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"run", "--config", config}, &out, &log) }()
	hears("READY=1")
	hears("WATCHDOG=1")
	if code, out, errout := try(t, "status", "-c", config); code != 0 || !strings.Contains(out, "m1.example.net") {
		t.Errorf("status: %d, %q, %q", code, out, errout)
	}
	if code, _, errout := try(t, "run", "-c", config); code != exitFailed || !strings.Contains(errout, "state") {
		t.Errorf("a second member: %d, %q", code, errout)
	}
	exported(t, config)
	reloads := func(want string) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		hears("RELOADING=1")
		hears("READY=1")
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q: %s", want, log.String())
		}
	}
	rewrite("interval: 500ms", "interval: 600ms")
	reloads("msg=reloaded")
	rewrite("interval: 600ms", "intervall: 600ms")
	reloads("not reloaded, everything is as before")
	rewrite("intervall: 600ms", "interval: 600ms\nweight: 7")
	reloads("msg=reloaded")
	rewrite("profile: local", "profile: lan")
	reloads("cannot change while the member runs")
	stop()
	hears("STOPPING=1")
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d: %s", code, log.String())
	}
}
