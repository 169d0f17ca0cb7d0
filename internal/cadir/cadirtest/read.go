package cadirtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Read reads a file, also a serial that is sealed against the very user that runs the
// test; for a moment it is not sealed then.
func Read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrPermission) {
		return data, err
	}
	fi, err := os.Lstat(path)
	if err == nil {
		err = os.Chmod(path, 0o400)
	}
	if err != nil {
		return nil, err
	}
	data, err = os.ReadFile(path)
	return data, errors.Join(err, os.Chmod(path, fi.Mode()))
}

// Copy copies a CA, sealed or not, to a directory that is not there yet; the copy is not
// sealed.
func Copy(t testing.TB, to, from string) {
	t.Helper()
	must(t, filepath.Walk(from, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if fi.IsDir() {
			return os.Mkdir(filepath.Join(to, rel), 0o750)
		}
		data, err := Read(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o640)
	}))
}
