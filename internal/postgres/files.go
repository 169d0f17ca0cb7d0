package postgres

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxFile bounds the small files of a server that are read here, in bytes.
const maxFile = 1 << 20

// readLimited reads a file of the server's. It follows no link: the server's user, who
// may put one there, may see less than this process.
func readLimited(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return nil, err
	} else if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %s: it is no regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// autoConf is where ALTER SYSTEM, pg_rewind -R and this package put settings.
const autoConf = "postgresql.auto.conf"

// setConninfo sets primary_conninfo in the files of a server that does not run.
func setConninfo(data string, c conninfo) error {
	path := filepath.Join(data, autoConf)
	old, err := readLimited(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("setting primary_conninfo: %w", err)
	}
	if err := replaceFile(path, []byte(withConninfo(string(old), c))); err != nil {
		return fmt.Errorf("setting primary_conninfo: %w", err)
	}
	return nil
}

// withConninfo is the file with one primary_conninfo.
func withConninfo(file string, c conninfo) string {
	var b strings.Builder
	for line := range strings.Lines(file) {
		name := strings.TrimLeft(line, " \t")
		if rest, ok := strings.CutPrefix(strings.ToLower(name), "primary_conninfo"); ok && strings.IndexAny(rest, "= \t") == 0 {
			continue
		}
		b.WriteString(line)
	}
	if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
		b.WriteByte('\n')
	}
	// guc-file.l: '' is a quote, and \ takes the meaning from the next byte.
	v := strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(c.String())
	fmt.Fprintf(&b, "primary_conninfo = '%s'\n", v)
	return b.String()
}

// replaceFile writes a file of the server's, with the owner of its directory.
func replaceFile(path string, data []byte) (err error) {
	temporary := path + ".puppetsrv"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temporary)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = chownAs(f, filepath.Dir(path)); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// lastLines is the end of a log of the server's, on one line; "" if it cannot be read.
func lastLines(path string) string {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	const size = 600
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return ""
	} else if fi.Size() > size {
		if _, err := f.Seek(-size, io.SeekEnd); err != nil {
			return ""
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, size))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(oneLine(string(data)), "")
}
