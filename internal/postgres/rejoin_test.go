package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// Rows of a diverged pair.
const (
	common    = 1   // both have it
	lost      = 100 // and 110 more: only the former primary has them
	following = 500 // only the new one has it
)

// diverged are a former primary a that has rows its successor b never got. a's files
// say so: end leaves a as it is to be found.
func diverged(t *testing.T, end func(a *cluster), opts ...option) (a, b *cluster) {
	t.Helper()
	a = newPrimary(t, opts...)
	l := newLink(t, a)
	b = a.newStandby("b", l, opts...)
	a.exec("INSERT INTO rows VALUES (1)")
	flushed := get[int64](a, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
	b.await("it has the first row", func(e evidence.PostgreSQL) bool { return e.Replayed >= evidence.LSN(flushed) })
	l.hold(true)
	a.exec("INSERT INTO rows SELECT i, repeat('x', 500) FROM generate_series(100, 210) i")
	a.append("pg_hba.conf", "# of a alone\n")
	end(a)
	b.become(role.Open)
	b.exec("INSERT INTO rows VALUES (500)")
	a.config.Rejoin, a.config.Source = postgres.RejoinRun, b.source()
	a.open()
	return a, b
}

func crash(a *cluster) { a.kill() }

// kept are the directories beside the data directory.
func kept(c *cluster) []string {
	found, err := filepath.Glob(c.data + ".*")
	fatal(c.t, err)
	var dirs []string
	for _, f := range found {
		if fi, err := os.Stat(f); err == nil && fi.IsDir() {
			dirs = append(dirs, strings.TrimPrefix(f, c.data))
		}
	}
	return dirs
}

// rejoined checks that a is b's standby, as it was configured, and nothing else.
func rejoined(a, b *cluster) {
	a.t.Helper()
	a.await("it streams", func(e evidence.PostgreSQL) bool { return e.Streaming })
	a.is(role.Standby, "standby, streaming")
	if err := a.Follows(a.Observe(a.t.Context())); err != nil {
		a.t.Errorf("a standby that streams: %v", err)
	}
	a.cannotWrite()
	if !a.guarded() {
		a.t.Error("a standby without standby.signal")
	}
	b.exec("INSERT INTO rows SELECT max(id) + 1 FROM rows")
	flushed := get[int64](b, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
	a.await("it has what was written since", func(e evidence.PostgreSQL) bool { return e.Replayed >= evidence.LSN(flushed) && !e.Current.IsZero() })
	has, want := a.rows(), b.rows()
	if !has[common] || has[lost] || !has[following] || len(has) != len(want) {
		a.t.Errorf("%s has %d rows, %s has %d; lost ones: %v", a.name, len(has), b.name, len(want), has[lost])
	}
	hba, err := os.ReadFile(filepath.Join(a.data, "pg_hba.conf"))
	fatal(a.t, err)
	if !strings.Contains(string(hba), "# of a alone") {
		a.t.Error("pg_hba.conf is no longer its own")
	}
	if port := get[int](a, "SELECT current_setting('port')::int"); port != a.port {
		a.t.Errorf("postgresql.conf is no longer its own: port %d", port)
	}
	if steps, err := a.Plan(a.Observe(a.t.Context()), role.Standby); err != nil || len(steps) != 0 {
		a.t.Errorf("a standby is to become one: %v, %v", steps, err)
	}
}

func TestRejoinByRewind(t *testing.T) {
	for name, end := range map[string]func(*cluster){
		"after a crash":     crash,
		"after a clean end": func(a *cluster) { a.stop("fast") },
		"while it runs":     func(*cluster) {},
		"started guarded": func(a *cluster) {
			a.kill()
			a.open()
			a.become(role.Closed)
			a.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := diverged(t, end)
			done := strings.Join(a.become(role.Standby), "\n")
			if !strings.Contains(done, "pg_rewind: rewound to") || !strings.Contains(done, "pg_basebackup: not needed") {
				t.Errorf("steps:\n%s", done)
			}
			rejoined(a, b)
			dirs := kept(a)
			if len(dirs) != 1 || !strings.HasPrefix(dirs[0], ".wal-before-") {
				t.Fatalf("beside the data directory: %v", dirs)
			}
			// The rows that are gone are in the log that was kept.
			log, err := filepath.Glob(a.data + dirs[0] + "/0000000100000000*")
			fatal(t, err)
			found := false
			for _, f := range log {
				data, err := os.ReadFile(f)
				fatal(t, err)
				found = found || strings.Contains(string(data), strings.Repeat("x", 500))
			}
			if !found {
				t.Errorf("the log that was kept, %v, lacks the rows", log)
			}
		})
	}
}

func TestRejoinByBaseBackup(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []option
		end  func(*cluster)
		why  string
	}{
		{"without hints", []option{noHints}, crash, "pg_rewind needs wal_log_hints = on"},
		// pg_rewind needs the log back to the last checkpoint that both have.
		{"without the log", []option{withSettings("wal_keep_size = 0\nmax_wal_size = 2MB\n")}, func(a *cluster) {
			for range 6 {
				a.exec("INSERT INTO rows SELECT max(id) + 1 FROM rows", "SELECT pg_switch_wal()", "CHECKPOINT")
			}
			a.kill()
		}, "pg_rewind: it cannot be, so a base backup"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := diverged(t, tt.end, tt.opts...)
			done := strings.Join(a.become(role.Standby), "\n")
			if !strings.Contains(done, tt.why) || !strings.Contains(done, "pg_basebackup: done") {
				t.Errorf("steps:\n%s", done)
			}
			rejoined(a, b)
			dirs := kept(a)
			if len(dirs) != 1 || !strings.HasPrefix(dirs[0], ".before-") {
				t.Fatalf("beside the data directory: %v", dirs)
			}
			if _, err := os.Stat(a.data + dirs[0] + "/PG_VERSION"); err != nil {
				t.Errorf("the old data directory was not kept: %v", err)
			}
		})
	}
}

// Killed between the exchange of the directories and the renaming of the old one, and
// a directory by the new one's name that nobody knows of: nobody's data are removed.
func TestTheOldDirectoryIsNeverRemoved(t *testing.T) {
	a, b := diverged(t, crash, noHints)
	a.become(role.Standby)
	old := a.data + kept(a)[0]
	a.stop("fast")
	fatal(t, os.Rename(old, a.data+".puppetsrv-new"))
	fi, err := os.Stat(a.data)
	fatal(t, err)
	fatal(t, a.disk.Write("postgresql-rejoin.json", fmt.Appendf(nil, `{"stamp": "then", "building": %[1]d, "built": %[1]d}`, fi.Sys().(*syscall.Stat_t).Ino)))
	a.open()
	// A plan whose steps lead there: by its files the server is a standby that is stopped.
	a.become(role.Standby)
	rejoined(a, b)
	if dirs := kept(a); len(dirs) != 1 || dirs[0] != ".before-then" {
		t.Fatalf("beside the data directory: %v", dirs)
	}

	a.stop("fast")
	fatal(t, os.Rename(a.data, a.data+".good"))
	fatal(t, os.Rename(a.data+".before-then", a.data))
	fatal(t, os.Mkdir(a.data+".puppetsrv-new", 0o700))
	fatal(t, os.WriteFile(a.data+".puppetsrv-new/file", nil, 0o600))
	a.open()
	err = a.rejoins()
	if err == nil || !strings.Contains(err.Error(), "move it away") {
		t.Errorf("a directory that nobody knows of: %v", err)
	}
	if _, err := os.Stat(a.data + ".puppetsrv-new/file"); err != nil {
		t.Error("it is gone")
	}
}

// With rejoin: print nothing is overwritten, the error says the commands, and they do
// it.
func TestRejoinByHand(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []option
		want string
	}{{"rewind", nil, "pg_rewind --target-pgdata="}, {"base backup", []option{noHints}, "pg_basebackup --pgdata="}} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := diverged(t, crash, tt.opts...)
			a.config.Rejoin = postgres.RejoinPrint
			a.open()
			steps, err := a.Plan(a.Observe(t.Context()), role.Standby)
			fatal(t, err)
			for _, s := range steps {
				if strings.HasPrefix(s.Name, "pg_") {
					t.Fatalf("%s is among the steps of rejoin: print", s.Name)
				}
				if _, err = s.Run(t.Context()); err != nil {
					break
				}
			}
			// From the step that finds out, and from then on from the plan.
			for range 2 {
				var manual *postgres.ManualError
				if !errors.As(err, &manual) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(manual.Why, "what is behind it here is not there") && tt.opts == nil {
					t.Fatalf("not the commands: %v", err)
				}
				_, err = a.Plan(a.Observe(t.Context()), role.Standby)
			}
			t.Log(err)
			if a.is(role.Closed, ""); len(a.pids()) > 0 || !a.guarded() {
				t.Error("it is not closed until then")
			}
			var manual *postgres.ManualError
			errors.As(err, &manual)
			for _, line := range manual.Commands {
				if strings.HasPrefix(line, "# or") {
					break
				}
				c := command("sh", "-c", line)
				c.SysProcAttr = nil // as root, who becomes the server's user by runuser
				if out, err := c.CombinedOutput(); err != nil {
					t.Fatalf("%s: %v\n%s", line, err, out)
				}
			}
			a.await("it streams", func(e evidence.PostgreSQL) bool { return e.Streaming })
			rejoined(a, b)
		})
	}
}

// A standby that got more from the lost camaster than the one that was promoted cannot
// follow it. It is not taken for a standby, and is made one again.
func TestAStandbyThatIsAheadOfThePromotedOne(t *testing.T) {
	a := newPrimary(t)
	l := newLink(t, a)
	b := a.newStandby("b", l)
	c := a.newStandby("c", nil)
	a.exec("INSERT INTO rows VALUES (1)")
	flushed := evidence.LSN(get[int64](a, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint"))
	b.await("it has the first row", func(e evidence.PostgreSQL) bool { return e.Replayed >= flushed })
	l.hold(true)
	a.exec("INSERT INTO rows SELECT generate_series(100, 210)")
	flushed = evidence.LSN(get[int64](a, "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint"))
	c.await("it has all", func(e evidence.PostgreSQL) bool { return e.Replayed >= flushed })
	a.kill()
	b.become(role.Open)
	b.exec("INSERT INTO rows VALUES (500)")
	c.append("pg_hba.conf", "# of a alone\n")
	c.config.Source, c.config.Rejoin = b.source(), postgres.RejoinPrint
	c.open()
	before := c.Evidence(t.Context())
	c.is(role.Closed, "standby that cannot follow")
	if e := c.Evidence(t.Context()); e.Role != "standby" || e.PrimaryWritten == 0 || e.Current.After(before.Current) {
		t.Errorf("%+v", e)
	}
	if _, err := c.Plan(c.Observe(t.Context()), role.Standby); err == nil || !strings.Contains(err.Error(), "pg_rewind --target") {
		t.Errorf("plan: %v", err)
	}
	if steps, err := c.Plan(c.Observe(t.Context()), role.Closed); err != nil || len(steps) != 0 {
		t.Errorf("it writes nothing, and yet: %v, %v", steps, err)
	}
	c.config.Rejoin = postgres.RejoinRun
	c.open()
	c.Evidence(t.Context()) // the source is asked with it
	c.become(role.Standby)
	rejoined(c, b)
}

// A standby that was stopped, as with a reboot, is started again also while the camaster
// is away, or nobody has said who that is.
func TestAStandbyAfterAReboot(t *testing.T) {
	a := newPrimary(t)
	b := a.newStandby("b", nil)
	for _, source := range []string{a.source(), ""} {
		for _, end := range []func(){func() { b.stop("fast") }, b.kill} {
			b.config.Source = source
			b.open()
			a.kill()
			end()
			b.is(role.Closed, "guarded")
			b.become(role.Standby)
			b.is(role.Standby, "not streaming")
			if err := b.Follows(b.Observe(t.Context())); err == nil {
				t.Error("nobody is there, and it follows")
			}
			b.cannotWrite()
			a.start()
			b.await("it streams", func(e evidence.PostgreSQL) bool { return e.Streaming })
			if err := b.Follows(b.Observe(t.Context())); err != nil {
				t.Error(err)
			}
		}
	}
}

// Another cluster is never overwritten, and a source that is a standby, cut off or not
// set is said.
func TestSourcesThatAreNone(t *testing.T) {
	a := newPrimary(t)
	standby := a.newStandby("b", nil)
	other := newCluster(t, "other")
	initdb(t, other.data)
	other.configure()
	other.start()
	other.exec("CREATE ROLE replicator LOGIN REPLICATION SUPERUSER")
	a.kill()
	a.open()
	a.start()
	a.become(role.Closed) // shut down: a crashed one would be a standby after its recovery
	if err := a.Clean(a.Observe(t.Context())); err != nil {
		t.Errorf("it was shut down: %v", err)
	}
	for _, tt := range []struct{ source, want string }{
		{other.source(), "the source is another cluster"},
		{standby.source(), "the source is a standby itself"},
		{a.source(), "asking the source"},
	} {
		a.config.Source, a.config.Rejoin = tt.source, postgres.RejoinRun
		a.open()
		err := a.rejoins()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("source %s: %v, want %s", tt.source, err, tt.want)
		}
		a.is(role.Closed, "guarded")
	}
	a.config.Source, a.config.Rejoin = "", postgres.RejoinPrint
	a.open()
	if _, err := a.Plan(a.Observe(t.Context()), role.Standby); err == nil || !strings.Contains(err.Error(), "source is not set") {
		t.Errorf("without a source: %v", err)
	}
	if kept := kept(a); len(kept) != 0 {
		t.Errorf("beside the data directory: %v", kept)
	}
}

// rejoins takes the steps by which a server becomes a standby, and returns why they ended
// before the last one.
func (c *cluster) rejoins() error {
	c.t.Helper()
	steps, err := c.Plan(c.Observe(c.t.Context()), role.Standby)
	fatal(c.t, err)
	for _, s := range steps {
		if _, err := s.Run(c.t.Context()); err != nil {
			return err
		}
	}
	return nil
}
