package role_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/role"
	"github.com/puppetsrv/puppetsrv/internal/store"
)

// runReload runs r until stop is called.
func runReload(t *testing.T, r *role.Reload) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func TestReload(t *testing.T) {
	dir, disk := t.TempDir(), store.Dir(t.TempDir())
	file := filepath.Join(dir, "runs")
	commands := []role.Command{sh("echo a >> " + file), sh("echo b >> " + file)}
	r := role.NewReload(commands, 0, disk, &logger{t: t})
	stop := runReload(t, r)
	r.Know(heard(1, to(m1)))
	if got := lines(t, file, 2); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%q", got)
	}
	// Not for a handover, nor for what is known or older.
	r.Know(heard(2, handover(m1, m2)))
	r.Know(heard(1, to(m1)))
	r.Know(heard(0, to("")))
	r.Know(heard(3, to(m2)))
	if got := lines(t, file, 4); len(got) != 4 {
		t.Errorf("%q", got)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if data, err := disk.Read("reload.json"); err == nil && strings.Contains(string(data), version(3).String()) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not remembered")
		}
	}
	stop()
	r = role.NewReload(commands, 0, disk, &logger{t: t})
	runReload(t, r)
	r.Know(heard(3, to(m2)))
	r.Know(heard(4, to(m1)))
	if got := lines(t, file, 6); len(got) != 6 {
		t.Errorf("after a restart: %q", got)
	}
	if r.Problem() != "" {
		t.Error(r.Problem())
	}
}

// What fails runs again, from the first command; a newer version ends what hangs.
func TestReloadThatFails(t *testing.T) {
	dir, disk := t.TempDir(), store.Dir(t.TempDir())
	file, flag := filepath.Join(dir, "runs"), filepath.Join(dir, "flag")
	if err := os.WriteFile(filepath.Join(string(disk), "reload.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := role.NewReload([]role.Command{sh("echo a >> " + file), sh("test -e " + flag)}, 0, disk, &logger{t: t})
	runReload(t, r)
	r.Know(heard(1, to(m1)))
	lines(t, file, 2)
	if !strings.Contains(r.Problem(), "camaster 0.1.ns1.example.net: reloading: running sh -c 'test -e ") {
		t.Errorf("%q", r.Problem())
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); r.Problem() != ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(r.Problem())
		}
	}

	hangs := filepath.Join(dir, "hangs")
	r = role.NewReload([]role.Command{sh("echo a >> " + hangs + "; test $(wc -l < " + hangs + ") -gt 1 || sleep 600")}, 0, disk, &logger{t: t})
	runReload(t, r)
	r.Know(heard(2, to(m1)))
	lines(t, hangs, 1)
	r.Know(heard(3, to(m1)))
	lines(t, hangs, 2)
}
