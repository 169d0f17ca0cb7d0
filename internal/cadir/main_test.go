package cadir_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "read-as-child" {
		if _, err := os.ReadFile(os.Args[2]); err != nil {
			os.Exit(3)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// site is a host with a CA, or room for one.
type site struct {
	*cadirtest.CA
	path string
}

func newSite(t testing.TB) site {
	t.Helper()
	path := filepath.Join(t.TempDir(), "puppetserver", "ca")
	return site{cadirtest.New(t, path, cadirtest.Options{}), path}
}

func open(t testing.TB, path string) *cadir.Dir {
	t.Helper()
	d, err := cadir.Open(path, cadir.Options{Owner: "root"})
	if os.Geteuid() != 0 {
		d, err = cadir.Open(path, cadir.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func look(t testing.TB, d *cadir.Dir) *cadir.Set {
	t.Helper()
	set, err := d.Look(t.Context())
	must(t, err)
	return set
}
