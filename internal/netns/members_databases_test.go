//go:build linux

package netns_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/miekg/dns"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// maxLag is what a standby may lack at most, in bytes.
const maxLag = 256 << 10

// databases are a PostgreSQL server on each host that may be camaster. Its programs run as
// the user postgres, in the host's namespace; clients reach them by the camaster's CNAME,
// which the nodes answer.
type databases struct {
	s   *memberSite
	bin string
	dir string // of the user postgres
	// made: the servers were started, and only units start them from now on.
	made bool
}

// newDatabaseSite is a site with a primary on m1 and a standby on m3.
func newDatabaseSite(t *testing.T) *memberSite {
	t.Helper()
	programs := postgresBin(t)
	s := &memberSite{site: prepareSite(t, "local", "m1", "m3"), on: []string{"m1", "m3"}, boots: make(map[string]int), ready: make(map[string]<-chan struct{})}
	dir, err := os.MkdirTemp("/tmp", "pg") // a socket's path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("chown", "postgres:", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.db = &databases{s: s, bin: programs, dir: dir}
	s.prepare()
	for _, name := range masters {
		first, second := s.nodes[nodeOf[datacenterOf[name]]].host.Addr, s.nodes["ns2"].host.Addr
		if first == second {
			second = s.nodes["ns1"].host.Addr
		}
		s.write(name+"/resolv.conf", fmt.Appendf(nil, "nameserver %s\nnameserver %s\noptions timeout:1 attempts:1\n", first, second))
		if err := os.Chmod(s.path(name, "resolv.conf"), 0o644); err != nil {
			t.Fatal(err)
		}
		s.hosts[name].Bind(s.path(name, "resolv.conf"), "/etc/resolv.conf")
	}
	s.explain = s.db.explain
	s.db.make()
	s.begin()
	s.db.made = true
	return s
}

// postgresBin is the directory of the server's programs.
func postgresBin(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		if os.Getenv("PUPPETSRV_POSTGRES") == "required" {
			t.Fatal("PUPPETSRV_POSTGRES is required, and PostgreSQL's server is not installed: apt install postgresql")
		}
		t.Skip("SKIPPED: PostgreSQL's server is not installed: apt install postgresql")
	}
	return filepath.Dir(found[len(found)-1])
}

func (d *databases) data(name string) string { return filepath.Join(d.dir, name, "data") }

// words are a command of the user postgres.
func (d *databases) words(program string, args ...string) []string {
	return append([]string{"setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", filepath.Join(d.bin, program)}, args...)
}

func (d *databases) control(name, verb string, more ...string) []string {
	return d.words("pg_ctl", append([]string{"-D", d.data(name), "-w", "-t", "60", "-s", "-l", filepath.Join(d.dir, name, "log"), verb}, more...)...)
}

// run runs a command of the user postgres on a host.
func (d *databases) run(name string, words []string) {
	d.s.t.Helper()
	cmd := d.s.hosts[name].Command(words[0], words[1:]...)
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		log, _ := os.ReadFile(filepath.Join(d.dir, name, "log"))
		d.s.t.Fatalf("%s: %v: %v: %s\n%s", name, words, err, out, log)
	}
}

// settings are small, for quick copies; fsync is off, for no power is lost but for
// processes.
const settings = `
listen_addresses = '*'
unix_socket_directories = '%s'
shared_buffers = 4MB
max_connections = 40
fsync = off
wal_log_hints = on
wal_keep_size = 64MB
min_wal_size = 2MB
max_wal_size = 64MB
max_wal_senders = 8
wal_retrieve_retry_interval = 100ms
wal_receiver_status_interval = 1s
wal_sender_timeout = 3s
wal_receiver_timeout = 3s
log_min_messages = log
`

const source = "host=puppet-camaster.example.net user=replicator connect_timeout=2"

// make makes both servers, and starts them by hand.
func (d *databases) make() {
	t := d.s.t
	t.Helper()
	write := func(name, file, text string, flag int) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(d.data(name), file), os.O_WRONLY|os.O_CREATE|flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("chown", "postgres:", f.Name()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	configure := func(name string) {
		write(name, "postgresql.conf", fmt.Sprintf(settings, filepath.Join(d.dir, name)), os.O_TRUNC)
	}
	for _, name := range d.s.capable {
		d.run(name, []string{"install", "-d", "-o", "postgres", "-m", "0755", filepath.Join(d.dir, name)})
	}
	d.run("m1", d.words("initdb", "-D", d.data("m1"), "-U", "postgres", "--auth-local=peer", "--auth-host=trust", "--wal-segsize=1", "--no-sync", "--no-locale", "-E", "UTF8"))
	configure("m1")
	write("m1", "pg_hba.conf", "host all all 10.0.0.0/8 trust\nhost replication all 10.0.0.0/8 trust\n", os.O_APPEND)
	d.run("m1", d.control("m1", "start"))
	d.exec("m1", "CREATE ROLE replicator LOGIN REPLICATION SUPERUSER", "CREATE TABLE rows (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), filler text)")
	d.run("m3", d.words("pg_basebackup", "-D", d.data("m3"), "-h", d.s.hosts["m1"].Addr.String(), "-U", "replicator", "-X", "stream", "-c", "fast", "--no-sync"))
	configure("m3")
	write("m3", "postgresql.auto.conf", "primary_conninfo = '"+source+"'\n", os.O_TRUNC)
	write("m3", "standby.signal", "", os.O_TRUNC)
	d.run("m3", d.control("m3", "start"))
}

// roleOf is the member's part.
func (d *databases) roleOf(name string) string {
	quoted := func(words []string) string {
		for i, w := range words {
			words[i] = strconv.Quote(w)
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	return fmt.Sprintf(`  postgresql:
    data: %s
    bindir: %s
    socket: %s
    start: %s
    stop: %s
    rejoin: run
    source: "%s"
    max_lag: %d
`, d.data(name), d.bin, filepath.Join(d.dir, name), quoted(d.control(name, "start")), quoted(d.control(name, "stop", "-m", "fast")), source, maxLag)
}

// unit starts a booted host's server, as its unit does: only if the member lets it.
func (d *databases) unit(name string) {
	d.s.t.Helper()
	if !d.made {
		return
	}
	// After a real boot no process has the id that is in it. Here one that was killed may
	// still have it, until it is reaped.
	if err := os.Remove(filepath.Join(d.data(name), "postmaster.pid")); err != nil {
		d.s.t.Fatal(err)
	}
	d.s.gate(name, "postgresql")
	d.run(name, d.control(name, "start"))
}

// connect is a client on a host.
func (d *databases) connect(ctx context.Context, from *netns.Host, to string) (*pgx.Conn, error) {
	address := d.s.hosts[to].Addr.String()
	cfg, err := pgx.ParseConfig("host=" + address + " port=5432 user=postgres dbname=postgres sslmode=disable connect_timeout=2")
	if err != nil {
		return nil, err
	}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address}, nil }
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return from.Dial(ctx, network, address)
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// explain shows the ends of the servers' logs, and what the members know of them.
func (d *databases) explain() {
	d.s.t.Helper()
	for _, name := range d.s.capable {
		log, _ := os.ReadFile(filepath.Join(d.dir, name, "log"))
		lines := strings.Split(string(log), "\n")
		d.s.t.Logf("the database's log on %s:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		d.s.t.Logf("from the database on %s stream: %s", name, d.ask(name, "SELECT coalesce(string_agg(host(client_addr) || ' ' || state, ', '), 'none') FROM pg_stat_replication"))
		if a, err := output(d.s.memberCommand(context.Background(), name, "status")); err == nil {
			d.s.t.Logf("the member on %s: %v", name, a)
		}
	}
}

// ask is a text that a host's server answers, or why it does not.
func (d *databases) ask(name, sql string) (text string) {
	ctx, cancel := context.WithTimeout(d.s.t.Context(), 2*time.Second)
	defer cancel()
	c, err := d.connect(ctx, d.s.hosts[name], name)
	if err == nil {
		defer closeConn(c)
		err = c.QueryRow(ctx, sql).Scan(&text)
	}
	if err != nil {
		return err.Error()
	}
	return text
}

// exec runs statements on a host's server, from that host.
func (d *databases) exec(name string, statements ...string) {
	d.s.t.Helper()
	ctx, cancel := context.WithTimeout(d.s.t.Context(), patience)
	defer cancel()
	c, err := d.connect(ctx, d.s.hosts[name], name)
	if err != nil {
		d.s.t.Fatal(err)
	}
	defer closeConn(c)
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			d.s.t.Fatalf("%s: %s: %v", name, s, err)
		}
	}
}

// rows are the ids that a host's server has.
func (d *databases) rows(name string) map[int64]bool {
	d.s.t.Helper()
	ctx, cancel := context.WithTimeout(d.s.t.Context(), patience)
	defer cancel()
	c, err := d.connect(ctx, d.s.hosts[name], name)
	if err != nil {
		d.s.t.Fatal(err)
	}
	defer closeConn(c)
	var all []int64
	if err := c.QueryRow(ctx, "SELECT coalesce(array_agg(id), '{}') FROM rows").Scan(&all); err != nil {
		d.s.t.Fatal(err)
	}
	has := make(map[int64]bool, len(all))
	for _, id := range all {
		has[id] = true
	}
	return has
}

func closeConn(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = c.Close(ctx) // a server that is gone does not answer
}

// camasterOf is the host that a node's DNS names, for a client on a host; "" where it does
// not answer.
func (s *site) camasterOf(from *netns.Host, n *node) string {
	records, err := ask(from, n, "puppet-camaster.example.net.", dns.TypeCNAME, 300*time.Millisecond)
	if err != nil {
		return ""
	}
	for _, rr := range records {
		if c, ok := rr.(*dns.CNAME); ok {
			name, _, _ := strings.Cut(c.Target, ".")
			return name
		}
	}
	return ""
}
