package postgres_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/puppetsrv/puppetsrv/internal/postgres"
	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// steppingEnv has what a process of its own is to do: it runs the steps to a state, and
// says before and after each on its output.
const steppingEnv = "PUPPETSRV_TEST_STEPPING"

type errand struct {
	Config postgres.Config
	Disk   string
	To     role.State
}

// stepping does the errand, if there is one.
func stepping() bool {
	text := os.Getenv(steppingEnv)
	if text == "" {
		return false
	}
	var e errand
	err := json.Unmarshal([]byte(text), &e)
	if err == nil {
		err = e.run()
	}
	if err != nil {
		fmt.Println("failed", err)
	}
	return true
}

func (e *errand) run() error {
	e.Config.Disk = store.Dir(e.Disk)
	s, err := postgres.NewService(e.Config)
	if err != nil {
		return err
	}
	steps, err := s.Plan(s.Observe(context.Background()), e.To)
	if err != nil {
		return err
	}
	for _, step := range steps {
		fmt.Println("begin", step.Name)
		if _, err := step.Run(context.Background()); err != nil {
			return fmt.Errorf("%s: %w", step.Name, err)
		}
		fmt.Println("end", step.Name)
	}
	return nil
}

// killedAt runs the steps in a process of its own, which is killed as soon as it says
// the nth line; false if it did not say that many. line is the last one.
func (c *cluster) killedAt(to role.State, n int) (line string, killed bool) {
	c.t.Helper()
	config := c.config
	config.Disk = nil
	text, err := json.Marshal(errand{config, string(c.disk), to})
	fatal(c.t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), steppingEnv+"="+string(text), "TMPDIR="+c.dir)
	out, err := cmd.StdoutPipe()
	fatal(c.t, err)
	fatal(c.t, cmd.Start())
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		line = lines.Text()
		if strings.HasPrefix(line, "failed") {
			c.t.Errorf("the errand %s", line)
		}
		if i == n {
			fatal(c.t, cmd.Process.Signal(syscall.SIGKILL))
			killed = true
			break
		}
	}
	_ = cmd.Wait() // killed, or done
	return line, killed
}

// Who runs the steps is killed in and after each of them, and another one goes on: the
// former primary gets to be a standby, and never writes on the way.
func TestKilledBetweenSteps(t *testing.T) {
	for name, opts := range map[string][]option{"rewind": nil, "base backup": {noHints}} {
		t.Run(name, func(t *testing.T) {
			a, b := diverged(t, crash, opts...)
			copied := a.dir + "/copy"
			run(t, "cp", "-a", a.data, copied)
			n := 0
			for {
				fatal(t, a.Close())
				a.Service = nil
				line, killed := a.killedAt(role.Standby, n)
				if !killed {
					break
				}
				a.open()
				// Whatever it left: whoever starts a server on it gets one that writes
				// nothing. (Not if it says that nobody must start it.)
				if o := a.Observe(t.Context()); o.State == role.Open {
					t.Fatalf("killed at %q: %s, %s", line, o.State, o.Detail)
				}
				done := a.become(role.Standby)
				rejoined(a, b)
				t.Logf("killed at %q: %d steps from there", line, len(done))
				a.eventually("what the killed one left has ended", func() bool { return !a.busy() })
				a.stop("immediate")
				for _, dir := range kept(a) {
					if strings.HasPrefix(dir, ".puppetsrv") {
						t.Errorf("killed at %q: %s is left over", line, dir)
					}
					fatal(t, os.RemoveAll(a.data+dir))
				}
				fatal(t, os.RemoveAll(a.data))
				run(t, "cp", "-a", copied, a.data)
				n++
			}
			if n < 10 {
				t.Errorf("only %d places", n)
			}
			a.open()
			rejoined(a, b)
		})
	}
}

// The same on the way to open, from a stopped former standby.
func TestKilledWhileOpening(t *testing.T) {
	a := newPrimary(t)
	b := a.newStandby("b", nil)
	a.kill()
	for n := 0; ; n++ {
		b.become(role.Closed)
		if len(b.pids()) > 0 {
			b.stop("fast")
		}
		fatal(t, b.Close())
		b.Service = nil
		line, killed := b.killedAt(role.Open, n)
		b.open()
		if !killed {
			if n < 6 {
				t.Errorf("only %d places", n)
			}
			break
		}
		b.become(role.Open)
		b.exec("INSERT INTO rows SELECT coalesce(max(id), 0) + 1 FROM rows")
		t.Logf("killed at %q", line)
	}
	b.is(role.Open, "")
}

// pg_rewind itself is cut off: what it left is never started, and a base backup takes
// its place, with the host's own configuration as it was before.
func TestARewindThatIsCutOff(t *testing.T) {
	a, b := diverged(t, crash)
	// A pg_rewind that spoils the directory and never ends.
	fake := filepath.Join(a.dir, "bin")
	fatal(t, os.Mkdir(fake, 0o755))
	programs, err := filepath.Glob(bin(t) + "/*")
	fatal(t, err)
	for _, p := range programs {
		if filepath.Base(p) != "pg_rewind" {
			fatal(t, os.Symlink(p, filepath.Join(fake, filepath.Base(p))))
		}
	}
	script := fmt.Sprintf(`#!/bin/sh
for a; do [ "$a" = --dry-run ] && exec %[1]s/pg_rewind "$@"; done
rm -f %[2]s/standby.signal %[2]s/pg_xact/0000
echo "# the source's" > %[2]s/pg_hba.conf
echo $$ > %[3]s/pid.new; mv %[3]s/pid.new %[3]s/pid
exec sleep 1000
`, bin(t), a.data, a.dir)
	fatal(t, os.WriteFile(filepath.Join(fake, "pg_rewind"), []byte(script), 0o755))
	a.config.BinDir = fake
	a.open()
	steps, err := a.Plan(a.Observe(t.Context()), role.Standby)
	fatal(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, s := range steps {
		if s.Name != "pg_rewind" {
			_, err := s.Run(ctx)
			fatal(t, err)
			continue
		}
		done := make(chan error)
		go func() {
			_, err := s.Run(ctx)
			done <- err
		}()
		a.eventually("pg_rewind has begun", func() bool { _, err := os.Stat(a.dir + "/pid"); return err == nil })
		cancel()
		if err := <-done; err == nil {
			t.Fatal("a pg_rewind that was cut off did well")
		}
		break
	}
	a.open()
	o := a.Observe(t.Context())
	if _, err := a.Plan(o, role.Open); err == nil || !strings.Contains(err.Error(), "pg_rewind was cut off") {
		t.Errorf("opening what a pg_rewind left: %v", err)
	}
	a.become(role.Closed)
	if !a.guarded() {
		t.Error("it is not guarded again")
	}
	a.config.Rejoin = postgres.RejoinPrint
	a.open()
	if _, err := a.Plan(a.Observe(t.Context()), role.Standby); err == nil || !strings.Contains(err.Error(), "pg_basebackup") || strings.Contains(err.Error(), "--target-pgdata") {
		t.Errorf("the commands: %v", err)
	}
	a.config.Rejoin = postgres.RejoinRun
	a.open()
	done := strings.Join(a.become(role.Standby), "\n")
	if !strings.Contains(done, "a base backup has to replace what it left") {
		t.Errorf("steps:\n%s", done)
	}
	rejoined(a, b)
}
