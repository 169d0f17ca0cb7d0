package settings_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/settings"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// said is a finding in one line.
func said(f settings.Finding) string { return fmt.Sprintf("%s %s: %s", f.Level, f.Subject, f.Text) }

func expect(t *testing.T, name string, got []settings.Finding, want ...string) {
	t.Helper()
	var lines []string
	for _, f := range got {
		lines = append(lines, said(f))
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

func TestFindingsOfPuppetserver(t *testing.T) {
	yes, no := true, false
	hot := &settings.CARole{Mode: settings.Hot}
	for _, c := range []struct {
		name string
		p    evidence.Puppetserver
		ca   *settings.CARole
		want []string
	}{
		{"well", evidence.Puppetserver{State: "running", Compiles: &yes, CAService: true}, hot, []string{"ok puppetserver: URL runs and compiles"}},
		{"not there", evidence.Puppetserver{State: "unreachable", Detail: "connection refused"}, hot, []string{"error puppetserver: URL: connection refused: start it, or set puppet.url"}},
		{"starting", evidence.Puppetserver{State: "starting"}, hot, []string{"error puppetserver: URL: it is starting: see its log"}},
		{"cannot compile", evidence.Puppetserver{State: "running", Compiles: &no, CompileDetail: "HTTP 500 no"}, nil, []string{"error puppetserver: URL says that it runs, and a node request fails: HTTP 500 no"}},
		{"busy", evidence.Puppetserver{State: "running"}, nil, []string{"warning puppetserver: URL runs, and a node request through a JRuby takes longer than the check: its JRubies may all be busy"}},
		{"not tried", evidence.Puppetserver{State: "running", CompileDetail: "not tried: x"}, nil, []string{"warning puppetserver: URL runs; whether it compiles is not known: not tried: x"}},
		{"hot without its service", evidence.Puppetserver{State: "running", Compiles: &yes}, hot, []string{"ok puppetserver: URL runs and compiles",
			"error ca: puppetserver's CA service is off, and with `mode: hot` it is on everywhere: turn it on in ca.cfg and restart puppetserver once the CA's files are here, or write `mode: service`"}},
		{"service, off", evidence.Puppetserver{State: "running", Compiles: &yes}, &settings.CARole{Mode: settings.Service}, []string{"ok puppetserver: URL runs and compiles"}},
	} {
		expect(t, c.name, settings.JudgePuppetserver(c.p, "URL", c.ca), c.want...)
	}
}

func TestFindingsOfPuppetDB(t *testing.T) {
	hot, service := &settings.PuppetDBRole{Mode: settings.Hot, URL: "URL"}, &settings.PuppetDBRole{Mode: settings.Service, URL: "URL"}
	for _, c := range []struct {
		p    evidence.PuppetDB
		db   *settings.PuppetDBRole
		want string
	}{
		{evidence.PuppetDB{State: "running", Queue: 3}, hot, "ok puppetdb: URL runs, 3 commands wait"},
		{evidence.PuppetDB{State: "stopped"}, service, "ok puppetdb: URL is stopped, as it is on a standby with `mode: service`"},
		{evidence.PuppetDB{State: "stopped"}, hot, "error puppetdb: URL: nobody listens there, and with `mode: hot` it runs everywhere: start it, or set roles.puppetdb.url"},
		{evidence.PuppetDB{State: "unreachable", Error: "no answer in time"}, hot, "error puppetdb: URL: no answer in time: set roles.puppetdb.url"},
		{evidence.PuppetDB{State: "error", Error: "its database does not answer"}, hot, "error puppetdb: URL: it is error: its database does not answer"},
	} {
		expect(t, c.want, []settings.Finding{settings.JudgePuppetDB(c.p, c.db)}, c.want)
	}
}

func TestFindingsOfPostgreSQL(t *testing.T) {
	p := &settings.PostgreSQLRole{Socket: "/s", Port: 5432, User: "postgres", OSUser: "postgres", MaxLag: 100}
	for _, c := range []struct {
		e    evidence.PostgreSQL
		want []string
	}{
		{evidence.PostgreSQL{Role: "primary", Timeline: 2, System: "7"}, []string{"ok postgresql: primary, timeline 2, system 7"}},
		{evidence.PostgreSQL{Role: "stopped"}, []string{"warning postgresql: it is stopped; the member starts it when it has decided"}},
		{evidence.PostgreSQL{Role: "unknown", Error: "no pg_hba.conf entry"}, []string{"error postgresql: it cannot be asked: no pg_hba.conf entry: set roles.postgresql.socket, port, user and os_user; psql -h /s -p 5432 -U postgres as postgres shows it too"}},
		{evidence.PostgreSQL{Role: "standby", Timeline: 2, System: "7"}, []string{"error postgresql: a standby that receives nothing from its primary: see its log, and primary_conninfo"}},
		{evidence.PostgreSQL{Role: "standby", Streaming: true, Timeline: 2, System: "7", Received: 100, PrimaryWritten: 201}, []string{"ok postgresql: standby, timeline 2, system 7", "warning postgresql: 101 bytes behind, more than max_lag: a failover to this host is refused"}},
		{evidence.PostgreSQL{Role: "standby", Streaming: true, Timeline: 2, System: "7", Received: 101, PrimaryWritten: 201}, []string{"ok postgresql: standby, timeline 2, system 7"}},
	} {
		expect(t, c.want[0], settings.JudgePostgreSQL(c.e, p), c.want...)
	}
}

func TestFindingsOfTheCRL(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		crl  evidence.CRL
		want string
	}{
		{evidence.CRL{Number: "7", NextUpdate: now.AddDate(0, 1, 0)}, "ok crl: number 7, until 2026-06-01"},
		{evidence.CRL{Number: "7", NextUpdate: now.AddDate(0, 0, 3)}, "warning crl: P expires on 2026-05-04, in 3 days: every agent is refused then; has the CA signed a new one?"},
		{evidence.CRL{Number: "7", NextUpdate: now}, "error crl: P expired on 2026-05-01: puppetserver refuses every agent with it; fetch the CA's, and look why that one is old"},
	} {
		expect(t, c.want, []settings.Finding{settings.JudgeCRL(c.crl, "P", now)}, c.want)
	}
}

func TestFindingsOfTheCertificate(t *testing.T) {
	now := time.Now()
	ca, err := stub.NewCA("Puppet CA")
	if err != nil {
		t.Fatal(err)
	}
	const cname = "puppet-camaster.example.net"
	for _, c := range []struct {
		name string
		s    settings.Settings
		o    stub.IssueOptions
		want string
	}{
		{"good", settings.Settings{Certname: "m1.example.net", CA: true, Camaster: cname}, stub.IssueOptions{CommonName: "m1.example.net", DNSNames: []string{cname}}, "ok certificate: m1.example.net, " + cname + ", until "},
		{"another's", settings.Settings{Certname: "m1.example.net"}, stub.IssueOptions{CommonName: "m2.example.net", DNSNames: []string{"m1.example.net"}}, "error certificate: it is m2.example.net's, and certname is m1.example.net"},
		{"without the CNAME", settings.Settings{Certname: "m1.example.net", CA: true, Camaster: cname}, stub.IssueOptions{CommonName: "m1.example.net"}, "warning certificate: its names are m1.example.net, without " + cname + ": clients that go by this name will refuse this host as camaster;"},
		{"without the CNAME, with PuppetDB", settings.Settings{Certname: "m1.example.net", CA: true, Camaster: cname, Roles: settings.Roles{PuppetDB: &settings.PuppetDBRole{}}}, stub.IssueOptions{CommonName: "m1.example.net"}, "error certificate: its names are m1.example.net, without " + cname + ", by which masters ask PuppetDB here after a failover;"},
		{"never camaster", settings.Settings{Certname: "m1.example.net", Camaster: cname}, stub.IssueOptions{CommonName: "m1.example.net"}, "ok certificate: "},
		{"soon over", settings.Settings{Certname: "m1.example.net"}, stub.IssueOptions{CommonName: "m1.example.net", NotAfter: now.AddDate(0, 0, 10).Add(time.Hour)}, "warning certificate: it expires on "},
		{"over", settings.Settings{Certname: "m1.example.net"}, stub.IssueOptions{CommonName: "m1.example.net", NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.Add(-time.Hour)}, "error certificate: it expired on "},
		{"not yet", settings.Settings{Certname: "m1.example.net"}, stub.IssueOptions{CommonName: "m1.example.net", NotBefore: now.Add(time.Hour)}, "error certificate: it is valid from "},
	} {
		id, err := ca.Issue(c.o)
		if err != nil {
			t.Fatal(err)
		}
		got := settings.JudgeCertificate(&c.s, id.Certificate.Leaf, now)
		if len(got) != 1 || !strings.HasPrefix(said(got[0]), c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestFindingsOfFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := func(name string, got settings.Finding, level settings.Level, text string) {
		t.Helper()
		if got.Level != level || !strings.Contains(got.Text, text) {
			t.Errorf("%s: %s, not %s: ...%s...", name, said(got), level, text)
		}
	}
	for _, c := range []struct {
		conf, text string
		level      settings.Level
	}{
		{"JAVA_ARGS=\"-Xms2g -Dsun.net.inetaddr.ttl=5\"\n", "keeps addresses for 5 s", settings.LevelOK},
		{"JAVA_ARGS=\"-Dsun.net.inetaddr.ttl=0\"\n", "keeps addresses for 0 s", settings.LevelOK},
		{"JAVA_ARGS=\"-Dsun.net.inetaddr.ttl=60\"\n", "keeps addresses for 60 s, which adds that", settings.LevelWarning},
		{"JAVA_ARGS=\"-Dsun.net.inetaddr.ttl=-1\"\n", "keeps addresses for ever", settings.LevelError},
		{"JAVA_ARGS=\"-Xms2g\"\n", "keeps addresses for 30 s", settings.LevelWarning},
		{"# JAVA_ARGS=\"-Dsun.net.inetaddr.ttl=5\"\nJAVA_ARGS=-Xms2g\n", "keeps addresses for 30 s", settings.LevelWarning},
		{"JAVA_ARGS=-Dsun.net.inetaddr.ttl=5\nJAVA_ARGS=-Xms2g\n", "keeps addresses for 30 s", settings.LevelWarning},
		{"JAVA_ARGS_CLI=-Dsun.net.inetaddr.ttl=5\n", "no JAVA_ARGS in", settings.LevelWarning},
	} {
		one(c.conf, settings.JudgeJavaArgs(write("puppetserver", c.conf, 0o644)), c.level, c.text)
	}
	one("no file", settings.JudgeJavaArgs(dir+"/none"), settings.LevelWarning, "set puppetserver.defaults")

	for i, c := range []struct {
		file, conf, text string
		level            settings.Level
	}{
		{"database.ini", "[database]\nsubname = //x\nmigrate = false\n", "it starts against a standby", settings.LevelOK},
		{"database.ini", "[database]\nmigrate = true\n", "ends there without `migrate = false`", settings.LevelError},
		{"database.ini", "[database]\n#migrate = false\n[read-database]\nmigrate = false\n", "ends there without `migrate = false`", settings.LevelError},
		{"db.conf", "database: {\n  migrate: false\n}\n", "it starts against a standby", settings.LevelOK},
		{"x.txt", "", "no configuration in", settings.LevelWarning},
	} {
		sub := fmt.Sprintf("pdb%d", i)
		write(sub+"/"+c.file, c.conf, 0o644)
		one(c.conf, settings.JudgeMigrate(filepath.Join(dir, sub)), c.level, c.text)
	}

	key := "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
	if got := settings.JudgeKey(write("good.key", key, 0o600)); len(got) != 0 {
		t.Errorf("a good key: %v", got)
	}
	one("a key for all", settings.JudgeKey(write("open.key", key, 0o640))[0], settings.LevelError, "is 0640, and who reads it can join: chmod 600 ")
	one("no key", settings.JudgeKey(dir + "/none")[0], settings.LevelError, "copy the DNS servers' key file here")
	one("a wrong key", settings.JudgeKey(write("bad.key", "x", 0o600))[0], settings.LevelError, "key: ")

	one("a directory", settings.JudgeWritable("state", dir), settings.LevelOK, dir)
	one("none yet", settings.JudgeWritable("state", dir+"/a/b/c"), settings.LevelOK, "will be made")
	one("a file", settings.JudgeWritable("state", write("file", "", 0o600)), settings.LevelError, "is no directory")
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	one("everybody's", settings.JudgeWritable("state", open), settings.LevelError, "chmod go-w")

	one("a clock", settings.JudgeClock(false, nil), settings.LevelOK, "")
	one("a clock adrift", settings.JudgeClock(true, nil), settings.LevelWarning, "chrony")

	for text, want := range map[string]bool{
		"puppetlabs.services.ca.certificate-authority-service/certificate-authority-service\n":                                                              true,
		"# on:\n  puppetlabs.services.ca.certificate-authority-service/certificate-authority-service":                                                       true,
		"#puppetlabs.services.ca.certificate-authority-service/certificate-authority-service\n":                                                             false,
		"puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service\npuppetlabs.trapperkeeper.services.watcher\n": false,
	} {
		if settings.ServiceOn([]byte(text)) != want {
			t.Errorf("%q: not %t", text, want)
		}
	}
}

// machine is a host with a puppetserver that answers what is set.
type machine struct {
	t        testing.TB
	dir      string
	ca       *stub.CA
	id       *stub.Identity
	hang     chan struct{} // until closed, puppetserver answers nothing, if it is set
	settings *settings.Settings
}

func newMachine(t testing.TB, more string) *machine {
	t.Helper()
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
	m := &machine{t: t, dir: t.TempDir(), ca: ca, id: id}
	m.write("cert.pem", id.CertPEM)
	m.write("key.pem", id.KeyPEM)
	m.write("ca.pem", ca.PEM())
	m.write("crl.pem", crl)
	m.write("puppetserver", []byte("JAVA_ARGS=-Dsun.net.inetaddr.ttl=5\n"))
	m.write("code/production/REVISION", []byte("1\n"))
	file := fmt.Sprintf(`layout: debian
certname: m1.example.net
datacenter: datacenter1
nodes: [localhost]
gossip: {bind: 127.0.0.1}
state: %[1]s/state
socket: %[1]s/member.sock
puppet: {cert: %[1]s/cert.pem, key: %[1]s/key.pem, ca: %[1]s/ca.pem, crl: %[1]s/crl.pem, cadir: %[1]s/ca, ca_cfg: %[1]s/ca.cfg, environments: %[1]s/code, url: https://%[2]s}
puppetserver: {defaults: %[1]s/puppetserver}
`, m.dir, m.serve()) + strings.ReplaceAll(more, "DIR", m.dir)
	if m.settings, err = settings.Parse("member.yaml", []byte(file), settings.ThisHost()); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) write(name string, data []byte) {
	m.t.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) serve() string {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	m.hang = make(chan struct{})
	close(m.hang)
	server := &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{m.id.Certificate}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-m.hang:
			case <-r.Context().Done():
			}
			switch r.URL.Path {
			case "/status/v1/simple":
				fmt.Fprint(w, "running")
			case "/puppet/v3/node/m1.example.net":
				fmt.Fprint(w, "{}")
			default:
				http.NotFound(w, r)
			}
		}),
	}
	var done sync.WaitGroup
	done.Go(func() { server.ServeTLS(l, "", "") })
	m.t.Cleanup(func() {
		server.Close()
		done.Wait()
	})
	return l.Addr().String()
}

// check returns what is not ok.
func (m *machine) check() (bad []string) {
	for _, f := range m.settings.Check(context.Background()) {
		if f.Level != settings.LevelOK && f.Subject != "clock" {
			bad = append(bad, strings.ReplaceAll(said(f), m.dir, "DIR"))
		}
	}
	return bad
}

func TestCheckOfAGoodHost(t *testing.T) {
	m := newMachine(t, "reload: [[true]]\n")
	before := snapshot(t, m.dir)
	all := m.settings.Check(context.Background())
	subjects := make(map[string]bool)
	for _, f := range all {
		subjects[f.Subject] = true
		if f.Level != settings.LevelOK && f.Subject != "clock" {
			t.Error(said(f))
		}
	}
	for _, s := range []string{"certificate", "crl", "gossip", "state", "commands", "puppetserver", "code", "java", "clock"} {
		if !subjects[s] {
			t.Errorf("nothing is said of %s", s)
		}
	}
	if diff := cmp.Diff(before, snapshot(t, m.dir)); diff != "" {
		t.Error("the check has changed the host: ", diff)
	}
}

func snapshot(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestCheckOfBadHosts(t *testing.T) {
	m := newMachine(t, "reload: [[no-such-program, x]]\n")
	m.ca.Revoke(m.id.Certificate.Leaf.SerialNumber)
	crl, err := m.ca.CRL()
	if err != nil {
		t.Fatal(err)
	}
	m.write("crl.pem", crl)
	m.write("puppetserver", nil)
	if err := os.Chmod(filepath.Join(m.dir, "key.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(m.dir, "code")); err != nil {
		t.Fatal(err)
	}
	m.settings.Gossip.Join = []string{"no such host"} // of which no server is asked
	want := []string{
		"error certificate: every user of this host can use the key: chmod o= DIR/key.pem",
		"error crl: this host's certificate is revoked: sign another one",
		"warning gossip: join: no such host has no address now: ",
		"error commands: reload[0]: `no-such-program x`: exec: \"no-such-program\": executable file not found in $PATH: it would fail when it is needed most",
		"warning code: no environment in DIR/code: set puppet.environments",
		"warning java: no JAVA_ARGS in DIR/puppetserver: set puppetserver.defaults, or set -Dsun.net.inetaddr.ttl=5 in JAVA_ARGS of DIR/puppetserver",
	}
	got := m.check()
	if len(got) != len(want) {
		t.Fatalf("%s", strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s\nnot\n%s", got[i], want[i])
		}
	}

	os.Remove(filepath.Join(m.dir, "cert.pem"))
	if got := m.check(); !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "has the agent of this host run") }) {
		t.Errorf("without a certificate: %v", got)
	}
}

func TestCheckOfTheCA(t *testing.T) {
	const on = "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service\n"
	const off = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service\n"
	m := newMachine(t, "roles: {ca: {mode: service, replicas: [m3.example.net]}}\n")
	has := func(want string) {
		t.Helper()
		if got := m.check(); !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("nobody says %q, but\n%s", want, strings.Join(got, "\n"))
		}
	}
	has("ca.cfg: no such file or directory: set puppet.ca_cfg")
	m.write("ca.cfg", []byte(on))
	has("error ca: there is no CA in DIR/ca and the CA service is on in DIR/ca.cfg: puppetserver makes a new CA at its next start")
	m.write("ca.cfg", []byte(off))
	has("warning ca: there is no CA in DIR/ca yet: the member copies it from the camaster, whose roles.ca.replicas must name m1.example.net")
	m.write("ca/ca_crt.pem", m.ca.PEM())
	has("error ca: DIR/ca has no ca_key.pem, ca_crl.pem, inventory.txt, serial: puppetserver does not start with it")

	if err := os.RemoveAll(filepath.Join(m.dir, "ca")); err != nil {
		t.Fatal(err)
	}
	if _, err := stub.NewCADir(filepath.Join(m.dir, "ca"), m.ca); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, m.dir)
	all := m.settings.Check(context.Background())
	if !slices.ContainsFunc(all, func(f settings.Finding) bool {
		return strings.HasPrefix(said(f), "ok ca: whole and verified, 1 certificates, next serial ")
	}) {
		t.Errorf("a whole CA: %v", all)
	}
	if diff := cmp.Diff(before, snapshot(t, m.dir)); diff != "" {
		t.Error("the check has changed the host: ", diff)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "ca", "serial"), []byte("0001"), 0o644); err != nil {
		t.Fatal(err)
	}
	has(": it cannot become the CA with this")
}

// A database that cannot be asked is told, with what was tried.
func TestCheckOfADatabaseThatIsNotThere(t *testing.T) {
	m := newMachine(t, "roles: {postgresql: {data: DIR/pg, bindir: DIR/bin, socket: DIR}}\n")
	says := func(want string) {
		t.Helper()
		if got := m.check(); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("nobody says %q, but\n%s", want, strings.Join(got, "\n"))
		}
	}
	says("error commands: roles.postgresql.bindir: pg_rewind: `DIR/bin/pg_rewind`: ")
	says(`error postgresql: bindir "DIR/bin" has no pg_controldata: `)
	for _, name := range []string{"pg_ctl", "pg_controldata", "pg_rewind", "pg_basebackup"} {
		m.write("bin/"+name, []byte("#!/bin/sh\nexit 1\n"))
		if err := os.Chmod(filepath.Join(m.dir, "bin", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	says("error postgresql: it is stopped, and ")
	if _, err := os.Stat(filepath.Join(m.dir, "state")); err == nil {
		t.Error("the check has made a state directory")
	}
}

// Something that hangs is told, and the rest is too.
func TestCheckEnds(t *testing.T) {
	m := newMachine(t, "")
	m.hang = make(chan struct{})
	began := time.Now()
	got := m.check()
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	if len(got) != 1 || !strings.HasPrefix(got[0], "error puppetserver: https://") || !strings.Contains(got[0], "no answer in time") && !strings.Contains(got[0], "has not ended") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// Every file that the man page shows is taken.
func TestManPagesFiles(t *testing.T) {
	data, err := os.ReadFile("../../cmd/puppetsrv-member/README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(data), "~~~ yaml\n")[1:]
	if len(blocks) < 3 {
		t.Fatalf("%d files", len(blocks))
	}
	for _, b := range blocks {
		file, _, _ := strings.Cut(b, "~~~")
		s, err := settings.Parse("README.md", []byte(file), debian())
		if err != nil {
			t.Errorf("%s\n%s", err, file)
			continue
		}
		if s.Gossip.Profile != gossip.LAN {
			t.Errorf("%+v", s)
		}
	}
}
