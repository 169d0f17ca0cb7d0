package admin_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/admin"
)

func onlyUnix(s *site, cfg *admin.Config) { cfg.Addresses = []string{s.unix} }

func (s *site) socket() string { return strings.TrimPrefix(s.unix, "unix://") }

func TestSocketModes(t *testing.T) {
	s := newSite(t, onlyUnix)
	fi, err := os.Lstat(s.socket())
	fatal(t, err)
	if fi.Mode() != os.ModeSocket|0o660 {
		t.Errorf("socket: %v", fi.Mode())
	}
	fi, err = os.Stat(filepath.Dir(s.socket()))
	fatal(t, err)
	if fi.Mode().Perm()&^0o750 != 0 {
		t.Errorf("directory: %v", fi.Mode())
	}
	fatal(t, s.close())
	if _, err := os.Lstat(s.socket()); !os.IsNotExist(err) {
		t.Errorf("after Close: %v", err)
	}
	fatal(t, s.close()) // twice is as good as once
}

// leave leaves a socket as a process that was killed does.
func leave(t *testing.T, path string) {
	t.Helper()
	fatal(t, os.MkdirAll(filepath.Dir(path), 0o700))
	l, err := net.Listen("unix", path)
	fatal(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	fatal(t, l.Close())
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocket(t *testing.T) {
	s := newSite(t, func(s *site, cfg *admin.Config) {
		onlyUnix(s, cfg)
		leave(t, s.socket())
	})
	if _, err := s.local().Camaster(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLivingSocket(t *testing.T) {
	s := newSite(t, onlyUnix)
	_, err := admin.Listen(admin.Config{Addresses: []string{s.unix}, Backend: s.backend, Log: s.journal})
	if err == nil || !strings.Contains(err.Error(), "listens on this socket") || !strings.Contains(err.Error(), s.unix) {
		t.Errorf("got %v", err)
	}
	if _, err := s.local().Camaster(t.Context()); err != nil {
		t.Errorf("the first: %v", err)
	}
}

func TestFileInPlaceOfSocket(t *testing.T) {
	s := newSite(t, onlyUnix)
	path := filepath.Join(s.dir, "file")
	fatal(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err := admin.Listen(admin.Config{Addresses: []string{"unix://" + path}, Log: s.journal})
	if err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Errorf("the file is gone: %v", err)
	}
}

// A socket that another process has put in its place is not removed.
func TestCloseLeavesAnothersSocket(t *testing.T) {
	s := newSite(t, onlyUnix)
	fatal(t, os.Remove(s.socket()))
	leave(t, s.socket())
	fatal(t, s.close())
	if _, err := os.Lstat(s.socket()); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	s := newSite(t, nil)
	got := s.server.Addresses()
	if len(got) != 2 || got[0] != s.unix || !strings.HasPrefix(got[1], "https://127.0.0.1:") || strings.HasSuffix(got[1], ":0") {
		t.Errorf("got %q", got)
	}
	for address, want := range map[string]string{
		"http://127.0.0.1:8153":                   "never without TLS",
		"https://ns1.example.net:8153":            "want an IP address and a port",
		"https://127.0.0.1":                       "want an IP address and a port",
		"https://127.0.0.1:8153/v1":               "want an IP address and a port",
		"unix://run/admin.sock":                   "three slashes",
		"unix:///" + strings.Repeat("x", 200):     "at most 107 bytes",
		"127.0.0.1:8153":                          "want unix:///PATH or https://IP:PORT",
		"":                                        "want unix:///PATH or https://IP:PORT",
		"unix:///proc/nothing/here":               "no such file",
		got[1]:                                    "has this port",
		"https://192.0.2.1:0":                     "does not have this IP address",
		"unix://" + filepath.Join(s.dir, "a?b=c"): "three slashes",
	} {
		// All or none: the first of the two goes again.
		first := "unix://" + filepath.Join(s.dir, "first.sock")
		server, err := admin.Listen(admin.Config{Addresses: []string{first, address}, Log: s.journal, Authority: s.authority, Identity: s.named("ns1.example.net")})
		if err == nil {
			server.Close(t.Context())
			t.Errorf("%q is listened on", address)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) {
			t.Errorf("%q: got %v, want %q", address, err, want)
		}
		if _, err := os.Lstat(filepath.Join(s.dir, "first.sock")); !os.IsNotExist(err) {
			t.Errorf("%q: the first address is still there: %v", address, err)
		}
	}
	if _, err := admin.Listen(admin.Config{Log: s.journal}); err == nil {
		t.Error("no address is listened on")
	}
}
