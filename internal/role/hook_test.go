package role_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// bring runs what is planned, and says by which steps.
func bring(t *testing.T, s role.Service, to role.State) (string, error) {
	t.Helper()
	steps, err := s.Plan(s.Observe(t.Context()), to)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, step := range steps {
		names = append(names, step.Name)
		if step.Timeout <= 0 || step.Detail == "" {
			t.Errorf("step %+v", step)
		}
		if _, err := step.Run(t.Context()); err != nil {
			return strings.Join(names, ", "), err
		}
	}
	return strings.Join(names, ", "), nil
}

func TestHook(t *testing.T) {
	disk := store.Dir(t.TempDir())
	file := filepath.Join(t.TempDir(), "open")
	plain := role.Hook{Name: "dashboard", Open: role.Command{"touch", file}, Close: role.Command{"rm", "-f", file}}
	for _, tt := range []struct {
		name string
		hook func(h role.Hook) role.Hook
		// The steps from a hook that was never used: to open, to standby, to closed; and from
		// standby to open.
		steps [4]string
	}{
		{"as the last command left it", func(h role.Hook) role.Hook { return h }, [4]string{"open", "close", "", "open"}},
		{"with a check", func(h role.Hook) role.Hook { h.Check = role.Command{"test", "-e", file}; return h }, [4]string{"open", "close", "", "open"}},
		{"with a standby", func(h role.Hook) role.Hook {
			h.Check, h.Standby = role.Command{"test", "-e", file}, role.Command{"true"}
			return h
		}, [4]string{"open", "close, standby", "", "open"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			h := tt.hook(plain)
			h.Name = strings.ReplaceAll(tt.name, " ", "-")
			make := func(boot string) role.Service {
				s, err := role.NewHook(h, disk, boot)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := make("boot")
			for i, to := range []role.State{role.Open, role.Standby, role.Closed, role.Open} {
				if got, err := bring(t, s, to); err != nil || got != tt.steps[i] {
					t.Errorf("to %s: %q, %v; want %q", to, got, err, tt.steps[i])
				}
				if _, err := os.Stat(file); (err == nil) != (to == role.Open) {
					t.Errorf("to %s: %v", to, err)
				}
				if got, err := bring(t, s, to); err != nil || got != "" {
					t.Errorf("to %s again: %q, %v", to, got, err)
				}
			}
			// Another process of the same boot knows; one of another boot looks, or asks anew.
			if o := make("boot").Observe(t.Context()); o.State != role.Open {
				t.Errorf("after a restart: %+v", o)
			}
			want := role.Unknown
			if len(h.Check) > 0 {
				want = role.Open
			}
			if o := make("other").Observe(t.Context()); o.State != want {
				t.Errorf("after a boot: %+v", o)
			}
			if _, ok := s.(role.Stateless); !ok {
				t.Error("it has data")
			}
		})
	}
}

// What a command was killed in, or failed in, is as nobody knows: both directions try
// again.
func TestHookThatFails(t *testing.T) {
	disk := store.Dir(t.TempDir())
	h := role.Hook{Name: "cron", Open: sh("echo no such unit; exit 5"), Close: role.Command{"true"}}
	s, err := role.NewHook(h, disk, "boot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bring(t, s, role.Closed); err != nil {
		t.Fatal(err)
	}
	if _, err := bring(t, s, role.Open); err == nil || !strings.Contains(err.Error(), "exit status 5: no such unit") {
		t.Errorf("%v", err)
	}
	s, err = role.NewHook(h, disk, "boot")
	if err != nil {
		t.Fatal(err)
	}
	if o := s.Observe(t.Context()); o.State != role.Unknown {
		t.Errorf("%+v", o)
	}
	if got, err := bring(t, s, role.Closed); err != nil || got != "close" {
		t.Errorf("%q, %v", got, err)
	}
}

// A check that cannot be made says nothing.
func TestHookCheck(t *testing.T) {
	for script, want := range map[string]role.State{
		"exit 0": role.Open, "exit 1": role.Closed, "exit 3": role.Closed, "kill -9 $$": role.Unknown,
	} {
		s, err := role.NewHook(role.Hook{Name: "x", Open: sh("true"), Close: sh("true"), Check: sh(script)}, store.Dir(t.TempDir()), "boot")
		if err != nil {
			t.Fatal(err)
		}
		if o := s.Observe(t.Context()); o.State != want {
			t.Errorf("%s: %+v", script, o)
		}
	}
	s, err := role.NewHook(role.Hook{Name: "x", Open: sh("true"), Close: sh("true"), Check: role.Command{"/nonexistent"}}, store.Dir(t.TempDir()), "boot")
	if err != nil {
		t.Fatal(err)
	}
	if o := s.Observe(t.Context()); o.State != role.Unknown {
		t.Errorf("%+v", o)
	}
}

// Without a disk that remembers, nothing is opened; it is closed all the same.
func TestHookWithoutADisk(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "open")
	s, err := role.NewHook(role.Hook{Name: "x", Open: role.Command{"touch", file}, Close: role.Command{"rm", file}}, noDisk{}, "boot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bring(t, s, role.Open); err == nil {
		t.Error("it opens")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it was opened")
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := bring(t, s, role.Closed); err == nil {
		t.Error("nobody is told")
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it was not closed")
	}
	if o := s.Observe(t.Context()); o.State != role.Closed {
		t.Errorf("%+v", o)
	}
}

type noDisk struct{}

func (noDisk) Read(string) ([]byte, error) { return nil, fs.ErrNotExist }
func (noDisk) Write(string, []byte) error  { return errors.New("no space left on device") }

func TestNewHookRefuses(t *testing.T) {
	yes := role.Command{"true"}
	for _, h := range []role.Hook{
		{Open: yes, Close: yes}, {Name: "../x", Open: yes, Close: yes}, {Name: strings.Repeat("x", 65), Open: yes, Close: yes},
		{Name: "x", Open: yes}, {Name: "x", Close: yes},
	} {
		if _, err := role.NewHook(h, noDisk{}, "boot"); err == nil || !strings.HasPrefix(err.Error(), "hook ") {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

// lines is what was written to a file so far, once there are n lines of it.
func lines(t *testing.T, file string, n int) []string {
	t.Helper()
	for range 3000 {
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if got := strings.Fields(string(data)); len(got) >= n {
			return got
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s has not got %d lines", file, n)
	return nil
}
