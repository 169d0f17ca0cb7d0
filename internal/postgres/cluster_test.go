package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// patience bounds every wait of these tests for an event, on a machine that has much
// else to do.
const patience = 60 * time.Second

// bin is the directory of PostgreSQL's programs.
func bin(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if f, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		if f, err = filepath.EvalSymlinks(f); err == nil {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		if os.Getenv("PUPPETSRV_POSTGRES") == "required" {
			t.Fatal("PostgreSQL's server is not installed, and PUPPETSRV_POSTGRES=required: apt install postgresql")
		}
		t.Skip("SKIPPED: PostgreSQL's server is not installed: apt install postgresql")
	}
	return filepath.Dir(found[len(found)-1])
}

// osUser is who servers run as.
const osUser = "postgres"

// command is one of a server's user.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = "/"
	c.Env = append(os.Environ(), "LC_ALL=C")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: credential()}
	return c
}

func credential() *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup(osUser)
	if err != nil {
		panic(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// memory is a directory in memory, if there is a large one: pg_rewind and pg_basebackup
// sync each of a thousand files.
func memory() string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &fs); err == nil && uint64(fs.Bsize)*fs.Bavail > 2<<30 {
		return "/dev/shm"
	}
	return "/tmp"
}

// scratch is a directory of the servers' user, with a short name: a socket's is at
// most 107 bytes long.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(memory(), "pg")
	fatal(t, err)
	fatal(t, os.Chmod(dir, 0o755))
	if c := credential(); c != nil {
		fatal(t, os.Chown(dir, int(c.Uid), int(c.Gid)))
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// cluster is one real server, its Service and its state.
type cluster struct {
	t      testing.TB
	name   string
	dir    string
	data   string
	host   string // for TCP
	port   int
	config postgres.Config
	disk   store.Dir
	*postgres.Service
}

// settings are those of the tests' servers. Small segments and little memory, so that
// copies are quick; fsync off, because what is tested does not lose power.
const settings = `
listen_addresses = '%s'
port = %d
unix_socket_directories = '%s'
shared_buffers = 4MB
max_connections = 30
fsync = off
wal_log_hints = %s
wal_keep_size = 64MB
min_wal_size = 2MB
max_wal_size = 64MB
autovacuum = off
max_wal_senders = 8
wal_retrieve_retry_interval = 100ms
wal_receiver_status_interval = 1s
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
log_min_messages = log
`

// option changes what newPrimary makes.
type option func(*options)

type options struct {
	hints  string
	config func(*postgres.Config)
	conf   string
}

func noHints(o *options) { o.hints = "off" }

func configured(f func(*postgres.Config)) option { return func(o *options) { o.config = f } }

func withSettings(conf string) option { return func(o *options) { o.conf = conf } }

// newPrimary makes a cluster from nothing and starts it by hand.
func newPrimary(t testing.TB, opts ...option) *cluster {
	t.Helper()
	c := newCluster(t, "a", opts...)
	template := initialised(t)
	run(t, "cp", "-a", template, c.data)
	c.configure(opts...)
	c.start()
	c.exec("CREATE ROLE replicator LOGIN REPLICATION SUPERUSER", "CREATE TABLE rows (id int PRIMARY KEY, filler text)")
	return c
}

func newCluster(t testing.TB, name string, opts ...option) *cluster {
	t.Helper()
	o := apply0(opts)
	dir := scratch(t)
	c := &cluster{t: t, name: name, dir: dir, data: filepath.Join(dir, "data"), host: "127.0.0.1", port: freePort(t)}
	c.disk = store.Dir(filepath.Join(t.TempDir(), "state"))
	fatal(t, os.MkdirAll(string(c.disk), 0o700))
	c.config = postgres.Config{
		Socket: dir, Port: uint16(c.port), OSUser: osUser, Data: c.data, BinDir: bin(t), Disk: c.disk,
		StartTimeout: patience, StopTimeout: patience, PromoteTimeout: patience, LookTimeout: 10 * time.Second,
	}
	if o.config != nil {
		o.config(&c.config)
	}
	t.Cleanup(func() {
		if c.Service != nil {
			c.Service.Close()
		}
		c.kill()
		if t.Failed() {
			if log, err := os.ReadFile(c.data + ".log"); err == nil {
				t.Logf("log of %s:\n%s", c.name, tailOf(string(log), 60))
			}
		}
	})
	return c
}

func apply0(opts []option) options {
	o := options{hints: "on"}
	for _, f := range opts {
		f(&o)
	}
	return o
}

func tailOf(s string, n int) string {
	lines := strings.Split(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// initialised is a directory that initdb made, once for all tests of one process.
// Local connections are by peer authentication, as Debian's are: they prove that the
// socket is connected as the server's user.
func initialised(t testing.TB) string {
	t.Helper()
	template.once.Do(func() {
		dir, err := os.MkdirTemp(memory(), "pgtemplate")
		if err != nil {
			t.Fatal(err)
		}
		fatal(t, os.Chmod(dir, 0o755))
		if c := credential(); c != nil {
			fatal(t, os.Chown(dir, int(c.Uid), int(c.Gid)))
		}
		template.dir = dir
		initdb(t, filepath.Join(dir, "data"))
	})
	return filepath.Join(template.dir, "data")
}

func initdb(t testing.TB, data string) {
	t.Helper()
	run(t, filepath.Join(bin(t), "initdb"), "-D", data, "-U", "postgres", "--auth-local=peer", "--auth-host=trust", "--wal-segsize=1", "--no-sync", "--no-locale", "-E", "UTF8")
}

var template struct {
	once sync.Once
	dir  string
}

func (c *cluster) configure(opts ...option) {
	c.t.Helper()
	o := apply0(opts)
	conf := fmt.Sprintf(settings, c.host, c.port, c.dir, o.hints) + o.conf
	path := filepath.Join(c.data, "postgresql.conf")
	fatal(c.t, os.WriteFile(path, []byte(conf), 0o600))
}

// open makes the Service, or makes it again as a new process would.
func (c *cluster) open() *cluster {
	c.t.Helper()
	if c.Service != nil {
		fatal(c.t, c.Service.Close())
	}
	s, err := postgres.NewService(c.config)
	fatal(c.t, err)
	c.Service = s
	return c
}

// newStandby copies c and streams from it through link, by hand.
func (c *cluster) newStandby(name string, link *link, opts ...option) *cluster {
	c.t.Helper()
	s := newCluster(c.t, name, opts...)
	run(c.t, filepath.Join(bin(c.t), "pg_basebackup"), "-D", s.data, "-d", c.source(), "-X", "stream", "-c", "fast", "--no-sync")
	s.configure(opts...)
	conninfo := c.source()
	if link != nil {
		conninfo = link.source()
	}
	s.append("postgresql.auto.conf", "primary_conninfo = '"+conninfo+"'\n")
	s.append("standby.signal", "")
	s.start()
	s.config.Source = conninfo
	s.open()
	s.await("it streams", func(e evidence.PostgreSQL) bool { return e.Streaming && !e.Current.IsZero() })
	return s
}

// source is the conninfo of c for others.
func (c *cluster) source() string {
	return fmt.Sprintf("host=%s port=%d user=replicator", c.host, c.port)
}

func (c *cluster) append(file, text string) {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(c.data, file), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	fatal(c.t, err)
	_, err = f.WriteString(text)
	fatal(c.t, err)
	if cr := credential(); cr != nil {
		fatal(c.t, f.Chown(int(cr.Uid), int(cr.Gid)))
	}
	fatal(c.t, f.Close())
}

// start starts the server by hand, as anybody may.
func (c *cluster) start() {
	c.t.Helper()
	out, err := command(filepath.Join(bin(c.t), "pg_ctl"), "-D", c.data, "-w", "-t", "60", "-s", "-l", c.data+".log", "start").CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(c.data + ".log")
		c.t.Fatalf("starting %s: %v\n%s\n%s", c.name, err, out, tailOf(string(log), 30))
	}
}

// stop stops it by hand.
func (c *cluster) stop(mode string) {
	c.t.Helper()
	run(c.t, filepath.Join(bin(c.t), "pg_ctl"), "-D", c.data, "-w", "-m", mode, "-s", "stop")
}

// pids are its processes.
func (c *cluster) pids() []int {
	want, err := os.Stat(c.data)
	if err != nil {
		return nil
	}
	var pids []int
	found, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, f := range found {
		if fi, err := os.Stat(f); err == nil && os.SameFile(fi, want) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// signal goes to all of its processes.
func (c *cluster) signal(sig syscall.Signal) {
	c.t.Helper()
	for _, pid := range c.pids() {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			c.t.Error(err)
		}
	}
}

// kill is kill -9 of the whole server, and its end.
func (c *cluster) kill() {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	pids := c.pids()
	left := func() bool {
		for _, pid := range pids {
			// Also a zombie, which the next server would take for a postmaster.
			if syscall.Kill(pid, 0) == nil {
				return true
			}
		}
		return len(c.pids()) > 0
	}
	for left() {
		c.signal(syscall.SIGKILL)
		if time.Now().After(deadline) {
			c.t.Fatalf("the processes of %s do not end", c.name)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// dsn is for clients, over TCP.
func (c *cluster) dsn() string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres sslmode=disable connect_timeout=5", c.host, c.port)
}

func (c *cluster) exec(statements ...string) {
	c.t.Helper()
	fatal(c.t, c.try(statements...))
}

func (c *cluster) try(statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.dsn())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// get is one value.
func get[T any](c *cluster, sql string) (v T) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.dsn())
	fatal(c.t, err)
	defer conn.Close(ctx)
	fatal(c.t, conn.QueryRow(ctx, sql).Scan(&v))
	return v
}

// rows are the ids that the server has.
func (c *cluster) rows() map[int]bool {
	c.t.Helper()
	has := map[int]bool{}
	for _, id := range get[[]int](c, "SELECT coalesce(array_agg(id), '{}') FROM rows") {
		has[id] = true
	}
	return has
}

// await looks until it is as wanted.
func (c *cluster) await(what string, want func(evidence.PostgreSQL) bool) evidence.PostgreSQL {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		e := c.Evidence(c.t.Context())
		if want(e) {
			return e
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("waited until %s: %+v", what, e)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// become plans and runs all steps, each of them twice, as many times as it takes.
func (c *cluster) become(to role.State) []string {
	c.t.Helper()
	var done []string
	for range 5 {
		o := c.Observe(c.t.Context())
		steps, err := c.Plan(o, to)
		if err != nil {
			c.t.Fatalf("%s: plan %s of %s (%s): %v", c.name, to, o.State, o.Detail, err)
		}
		if len(steps) == 0 {
			return done
		}
		for _, s := range steps {
			for i := range 2 {
				ctx, cancel := context.WithTimeout(c.t.Context(), s.Timeout)
				begin := time.Now()
				detail, err := s.Run(ctx)
				cancel()
				if err != nil {
					c.t.Fatalf("%s: step %s (%s), time %d: %v", c.name, s.Name, s.Detail, i+1, err)
				}
				done = append(done, s.Name+": "+detail)
				c.t.Logf("%s: %-30s %5d ms  %s", c.name, s.Name, time.Since(begin).Milliseconds(), detail)
			}
		}
	}
	c.t.Fatalf("%s does not become %s: %v", c.name, to, done)
	return nil
}

// is checks the state.
func (c *cluster) is(want role.State, detail string) {
	c.t.Helper()
	o := c.Observe(c.t.Context())
	if o.State != want || !strings.Contains(o.Detail, detail) {
		c.t.Fatalf("%s is %s (%s), want %s (%s)", c.name, o.State, o.Detail, want, detail)
	}
}

// guarded reports whether standby.signal is there.
func (c *cluster) guarded() bool {
	_, err := os.Lstat(filepath.Join(c.data, "standby.signal"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Fatal(err)
	}
	return err == nil
}

// cannotWrite: nobody can, and not because nobody answers.
func (c *cluster) cannotWrite() {
	c.t.Helper()
	err := c.try("INSERT INTO rows VALUES (-1)")
	if err == nil || !strings.Contains(err.Error(), "25006") { // read_only_sql_transaction
		c.t.Fatalf("%s: a write gives %v, want 25006", c.name, err)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until something is so.
func (c *cluster) eventually(what string, is func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited until %s", what)
		}
	}
}

// busy: a program that works on the data directory is under way, besides its server.
func (c *cluster) busy() bool {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range found {
		line, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		program, args, _ := strings.Cut(string(line), "\x00")
		if strings.HasPrefix(filepath.Base(program), "pg_") && strings.Contains(args, c.data) {
			return true
		}
	}
	return false
}
