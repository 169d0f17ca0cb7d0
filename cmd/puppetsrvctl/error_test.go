package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// complains runs the program, and wants a code and the whole of stderr, in which
// <...> stands for anything.
func (s *site) complains(code int, args []string, stderr string) {
	s.t.Helper()
	complains(s.t, code, s.run(args...), args, stderr)
}

func complains(t *testing.T, code int, o outcome, args []string, stderr string) {
	t.Helper()
	pattern := regexp.MustCompile(`<\\?\.\\?\.\\?\.>`).ReplaceAllString(regexp.QuoteMeta(stderr), ".*")
	if o.code != code || !regexp.MustCompile(`^puppetsrvctl: `+pattern+`\n$`).MatchString(o.stderr) {
		t.Errorf("%q ends with %d and\n%s\nwant %d and\npuppetsrvctl: %s", args, o.code, o.stderr, code, stderr)
	}
}

func TestUsage(t *testing.T) {
	s := newSite(t)
	for command, stderr := range map[string]string{
		"":                                       "expected one of \"status\", \"masters\", \"camaster\", \"failover\", \"switchover\", ...\nsee `puppetsrvctl --help`",
		"statsu":                                 "unexpected argument statsu, did you mean \"status\"?\nsee `puppetsrvctl --help`",
		"status --chekc":                         "unknown flag --chekc, did you mean \"--check\"?\nsee `puppetsrvctl status --help`",
		"status -o yaml":                         "--output must be one of \"table\",\"json\" but got \"yaml\"\nsee `puppetsrvctl status --help`",
		"status --timeout soon":                  "--timeout: want a duration such as 30s, 30m or 12h, not \"soon\"\nsee `puppetsrvctl status --help`",
		"camaster set":                           "<...>\nsee `puppetsrvctl camaster set --help`",
		"camaster set m3":                        "missing flags: --reason=STRING\nsee `puppetsrvctl camaster set --help`",
		"camaster set m3 --reason= ":             "reason: <...>",
		"camaster set m3 --reason x --wait most": "--wait must be one of \"all\",\"majority\",\"none\" but got \"most\"\nsee `puppetsrvctl camaster set --help`",
		"camaster set m3 --reason x --expect 4":  "expect: \"4\" is no version: <...>",
		"camaster set m3!.x --reason x":          "host: \"m3!.x\" is no host name: <...>",
		"drain m2 --reason x --for 10ms":         "--for is 10ms: want 1s to 8760h",
		"drain m2 --reason x --for 9000h":        "--for is 9000h0m0s: want 1s to 8760h",
		"drain m2 --reason x --for=-5m":          "--for: want a duration such as 30s, 30m or 12h, not \"-5m\"\nsee `puppetsrvctl drain --help`",
		"history --limit=-1":                     "--limit is -1: want 0 or more",
		"watch --count=-1":                       "--count is -1: want 1 or more",
		"keys use":                               "expected \"<id>\"\nsee `puppetsrvctl keys use --help`",
		"completion tcsh":                        "<shell> must be one of \"bash\",\"zsh\",\"fish\" but got \"tcsh\"\nsee `puppetsrvctl completion --help`",
		"status --server http://x":               "server \"http://x\": want unix:///PATH or https://HOST:PORT",
	} {
		s.complains(exitUsage, words(command), stderr)
	}
	s.change(func(st *admin.Status) { st.Masters[3].Host = "m3.example.org." })
	s.complains(exitUsage, words("drain m3 --reason x"), `"m3" is more than one master: m3.example.net, m3.example.org; give the whole name`)
	s.complains(exitUsage, words("camaster set m3 --reason x"), `"m3" is more than one master: m3.example.net, m3.example.org; give the whole name`)

	if _, err := os.Stat(defaultSocket); err == nil {
		t.Skipf("this machine has a %s: what is said without one is not tested", defaultSocket)
	}
	s.env = environment(t)
	s.complains(exitUsage, words("status"), "no server was given, and this host has no /run/puppetsrv/admin.sock\n"+
		"give --server https://HOST:8153 or --server unix:///PATH, or set PUPPETSRV_SERVER")
}

func TestRefused(t *testing.T) {
	s := newSite(t)
	s.complains(exitRefused, words("camaster set m2 --reason x"), "m2.example.net may not become the camaster (--force passes over these rules)\n"+
		"  - it is not marked ca\n  - it is down in datacenter1")
	s.complains(exitRefused, words("camaster set m3 --reason x --expect 0.3.ns1"), "the camaster has version 0.4.ns1, not 0.3.ns1\n"+
		"  the camaster is m1.example.net, by local:root: planned move (version 0.4.ns1)")
	s.complains(exitRefused, words("drain m9 --reason x"), "no master is called \"m9\"; `puppetsrvctl masters` lists them")
	s.complains(exitRefused, words("drain m9.example.net --reason x"), "m9.example.net is no master")
	s.complains(exitRefused, words("zone datacenter9"), `"datacenter9" is no datacenter: there are datacenter1, datacenter2`)
	s.want(exitDone, words("camaster set m2 --reason x --force"), "is now m2.example.net")
	if w := s.History("camaster")[0]; !w.Forced {
		t.Errorf("written: %+v", w)
	}
}

// What has no code of its own is 1.
func TestOtherErrors(t *testing.T) {
	s := newSite(t)
	s.set(func(f *fake) {
		f.fault = &admin.Fault{Status: http.StatusServiceUnavailable, Type: "not-ready", Detail: "the register's file is damaged\x1b[2J"}
	})
	s.complains(exitFailed, words("camaster set m3 --reason x"), "the register's file is damaged?[2J")
	s.complains(exitFailed, words("drain m2 --reason x"), "the register's file is damaged?[2J")
	s.complains(exitFailed, words("undrain m2"), "the register's file is damaged?[2J")
	s.complains(exitFailed, words("keys add"), "the register's file is damaged?[2J")
	s.set(func(f *fake) { f.fault = os.ErrInvalid })
	s.complains(exitFailed, words("keys add"), "an error of the node itself, which is in its log")

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full here: a full disk is not tested")
	}
	defer full.Close()
	c := program(t, s.env, "status")
	c.Stdout = full
	var stderr strings.Builder
	c.Stderr = &stderr
	c.Run()
	complains(t, exitFailed, outcome{stderr: stderr.String(), code: c.ProcessState.ExitCode()}, c.Args, "writing the output: <...>no space left on device")
}

func TestUnreachable(t *testing.T) {
	s := newSite(t)
	gone := filepath.Join(t.TempDir(), "gone.sock")
	s.complains(exitUnreachable, []string{"status", "--server", "unix://" + gone}, "unix://<...>/gone.sock: there is no such socket: is puppetsrv running, <...>")
	s.complains(exitUnreachable, []string{"watch", "--server", "unix://" + gone}, "unix://<...>/gone.sock: there is no such socket: is puppetsrv running, <...>")

	stale := filepath.Join(t.TempDir(), "stale.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s.complains(exitUnreachable, []string{"masters", "--server", "unix://" + stale}, "unix://<...>/stale.sock: connection refused: <...>")

	mute := filepath.Join(t.TempDir(), "mute.sock")
	l, err = net.ListenUnix("unix", &net.UnixAddr{Name: mute})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.complains(exitUnreachable, []string{"keys", "add", "--timeout", "100ms", "--server", "unix://" + mute},
		"unix://<...>/mute.sock: no answer in time; whether the write was done is not known, the history says")
}

// ssldir is a Puppet ssldir, and an API over https that knows its CA.
type ssldir struct {
	*site
	ca   *stub.CA
	dir  string
	url  string
	name string
}

func write0(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue puts a certificate and its key where Puppet has them.
func issue(t *testing.T, ca *stub.CA, dir string, o stub.IssueOptions) {
	t.Helper()
	id, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	write0(t, filepath.Join(dir, "certs", o.CommonName+".pem"), id.CertPEM)
	write0(t, filepath.Join(dir, "private_keys", o.CommonName+".pem"), id.KeyPEM)
}

func newSSLDir(t *testing.T) *ssldir {
	t.Helper()
	ca, err := stub.NewCA("Puppet CA: m1.example.net")
	if err != nil {
		t.Fatal(err)
	}
	d := &ssldir{ca: ca, dir: t.TempDir(), name: "ops1.example.net"}
	write0(t, filepath.Join(d.dir, "certs", "ca.pem"), ca.PEM())
	crl, err := ca.CRL()
	if err != nil {
		t.Fatal(err)
	}
	write0(t, filepath.Join(d.dir, "crl.pem"), crl)
	issue(t, ca, d.dir, stub.IssueOptions{CommonName: d.name})

	server := t.TempDir()
	issue(t, ca, server, stub.IssueOptions{CommonName: "ns1.example.net", DNSNames: []string{"localhost"}})
	identity, err := trust.LoadIdentity(filepath.Join(server, "certs", "ns1.example.net.pem"), filepath.Join(server, "private_keys", "ns1.example.net.pem"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := trust.Open(filepath.Join(d.dir, "certs", "ca.pem"), "")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	s, err := admin.Listen(admin.Config{
		Addresses: []string{"https://127.0.0.1:0"}, Backend: f, Identity: identity, Authority: authority,
		Allow: admin.Allow{Write: []string{"ops1.example.net"}, Read: []string{"reader.example.net"}}, Log: silent{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(s) })
	d.url = strings.Replace(s.Addresses()[0], "127.0.0.1", "localhost", 1)
	d.site = &site{f, t, environment(t, "PUPPETSRV_SERVER="+d.url)}
	return d
}

func (d *ssldir) cert(name string) string { return filepath.Join(d.dir, "certs", name+".pem") }
func (d *ssldir) key(name string) string  { return filepath.Join(d.dir, "private_keys", name+".pem") }

func TestHTTPS(t *testing.T) {
	d := newSSLDir(t)
	d.want(exitDone, []string{"status", "--ssldir", d.dir}, "camaster  m1.example.net")
	d.want(exitDone, []string{"drain", "m2", "--reason", "x", "--cert", d.cert(d.name), "--key", d.key(d.name), "--ca", d.cert("ca")}, "drained")
	if w := d.History("")[0]; w.Actor != d.name {
		t.Errorf("written by %q", w.Actor)
	}
	env := d.env
	d.env = append(env, "PUPPETSRV_CERT="+d.cert(d.name), "PUPPETSRV_KEY="+d.key(d.name), "PUPPETSRV_CA="+d.cert("ca"), "PUPPETSRV_CRL="+filepath.Join(d.dir, "crl.pem"))
	d.want(exitDone, words("status"))
	d.env = env

	// Puppet's own place for those who are not root is at home.
	if os.Getuid() != 0 {
		home := t.TempDir()
		if err := os.MkdirAll(filepath.Join(home, ".puppetlabs", "etc", "puppet"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(d.dir, filepath.Join(home, ".puppetlabs", "etc", "puppet", "ssl")); err != nil {
			t.Fatal(err)
		}
		d.env = append(env, "HOME="+home)
		d.want(exitDone, words("status"))
		d.env = env
	}

	issue(t, d.ca, d.dir, stub.IssueOptions{CommonName: "reader.example.net"})
	d.complains(exitUsage, []string{"status", "--ssldir", d.dir}, d.dir+" has several certificates with a private key: ops1.example.net, reader.example.net\ngive --certname")
	d.want(exitDone, []string{"status", "--ssldir", d.dir, "--certname", "reader.example.net"})
}

func TestNotAllowed(t *testing.T) {
	d := newSSLDir(t)
	issue(t, d.ca, d.dir, stub.IssueOptions{CommonName: "reader.example.net"})
	issue(t, d.ca, d.dir, stub.IssueOptions{CommonName: "stranger.example.net"})
	issue(t, d.ca, d.dir, stub.IssueOptions{CommonName: "expired.example.net", NotAfter: time.Now().Add(-time.Hour)})
	other, err := stub.NewCA("another CA")
	if err != nil {
		t.Fatal(err)
	}
	issue(t, other, d.dir, stub.IssueOptions{CommonName: "foreign.example.net"})
	as := func(name string, args ...string) []string {
		return append(args, "--ssldir", d.dir, "--certname", name+".example.net")
	}
	d.complains(exitForbidden, as("reader", "drain", "m2", "--reason", "x"), "<...>reader.example.net<...>admin_allow write<...>")
	d.complains(exitForbidden, as("stranger", "status"), "<...>stranger.example.net<...>admin_allow<...>")
	d.complains(exitForbidden, as("expired", "status"), "<...>expired.example.net has expired<...>")
	d.complains(exitForbidden, as("foreign", "status"), "<...>foreign.example.net<...>")
	d.complains(exitForbidden, as("stranger", "watch"), "<...>stranger.example.net<...>")
	if n := len(d.History("")); n != 1 {
		t.Errorf("%d writes", n)
	}

	if os.Getuid() == 0 {
		return // root may open every socket
	}
	s := newSite(t)
	path := strings.TrimPrefix(s.env[len(s.env)-1], "PUPPETSRV_SERVER=unix://")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	s.complains(exitForbidden, words("status"), "<...>: permission denied: only root and the group of the socket may use it")
}

func TestCertificates(t *testing.T) {
	d := newSSLDir(t)
	empty := t.TempDir()
	d.complains(exitUsage, []string{"status", "--ssldir", empty}, "no CA certificate was given, and there is no "+empty+"/certs/ca.pem: give --ca, or --ssldir")
	write0(t, filepath.Join(empty, "certs", "ca.pem"), d.ca.PEM())
	d.complains(exitUsage, []string{"status", "--ssldir", empty},
		"no client certificate was given, and "+empty+" has none with a private key that can be read\ngive --cert and --key, or --ssldir, or run this as root")
	d.complains(exitUsage, []string{"status", "--ssldir", empty, "--certname", "x"}, "there is no certificate "+empty+"/certs/x.pem: give another --certname or --ssldir")
	d.complains(exitUsage, []string{"status", "--cert", d.cert(d.name)}, "--cert and --key (PUPPETSRV_CERT and PUPPETSRV_KEY) go together")
	d.complains(exitFailed, []string{"status", "--cert", d.cert(d.name), "--key", d.cert(d.name), "--ca", d.cert("ca")}, "<...>"+d.cert(d.name)+"<...>")
	d.complains(exitFailed, []string{"status", "--cert", d.cert(d.name), "--key", d.key(d.name), "--ca", d.key(d.name)}, "CA bundle "+d.key(d.name)+": no PEM certificate in it")

	// Another CA, another name: it is not the server that was meant.
	other, err := stub.NewCA("another CA")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	write0(t, file, other.PEM())
	d.complains(exitUnreachable, []string{"status", "--ssldir", d.dir, "--ca", file}, d.url+": the server's certificate is not of the given CA")
	address := strings.Replace(d.url, "localhost", "127.0.0.1", 1)
	d.complains(exitUnreachable, []string{"status", "--ssldir", d.dir, "--server", address}, address+": the server's certificate is not for this name: <...>")
}
