package admin

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// A socket is not open to more for the moment between binding and chmod.
func TestSocketIsBornRestricted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{Control: restrict}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode().Perm()&^socketMode != 0 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}
