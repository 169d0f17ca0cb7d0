package cadir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// filesDir is where fetched files lie in the work directory, each named by its hash: a
// sync that was cut off goes on with what it has.
const filesDir = "files"

// Missing returns which of files are neither in the cadir nor fetched.
func (d *Dir) Missing(ctx context.Context, files []File) ([]File, error) {
	if err := d.looking.take(ctx); err != nil {
		return nil, err
	}
	var absent []File
	for _, f := range files {
		if k := d.knownAt(f.Path); k == nil || k.sum != f.Sum {
			absent = append(absent, f)
		}
	}
	d.looking.release()
	missing := absent[:0]
	for _, f := range absent {
		s, err := statPath(d.blob(f.Sum))
		if err != nil {
			return nil, fmt.Errorf("looking for what is fetched: %w", err)
		}
		if s.zero() || s.size != f.Size {
			missing = append(missing, f)
		}
	}
	return missing, nil
}

// knownAt is what is live at a path, nil if nothing is. The caller looks.
func (d *Dir) knownAt(path string) *content {
	if k, ok := d.tops[path]; ok {
		return k.content
	}
	return d.signed[path].content
}

func (d *Dir) blob(s Sum) string { return d.work(filesDir, s.String()) }

// Put keeps a file's content for Replace. It refuses one that is not what f says.
func (d *Dir) Put(f File, r io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keeping %s: %w", f.Path, err)
		}
	}()
	most, ok := MaxSize(f.Path)
	if !ok || f.Size < 0 || f.Size > most {
		return fmt.Errorf("no file of a CA, or too large (%d bytes)", f.Size)
	}
	if err := os.MkdirAll(d.work(filesDir), 0o700); err != nil {
		return err
	}
	part := d.blob(f.Sum) + ".part"
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(r, f.Size+1))
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil && (n != f.Size || Sum(h.Sum(nil)) != f.Sum) {
		err = errors.New("what came is not what was announced")
	}
	if err != nil {
		os.Remove(part)
		return err
	}
	if err := d.step("put blob"); err != nil {
		return err
	}
	return os.Rename(part, d.blob(f.Sum))
}

// readBlob reads what was fetched. What is not what its name says is removed, and
// fetched again: the power may have gone before it was on disk.
func (d *Dir) readBlob(f File) ([]byte, error) {
	data, _, err := readRegular(d.blob(f.Sum), f.Size)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not fetched", f.Path)
	}
	if err == nil && sumOf(data) != f.Sum {
		os.Remove(d.blob(f.Sum))
		err = errors.New("it is damaged, and will be fetched again")
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was fetched of %s: %w", f.Path, err)
	}
	return data, nil
}

// Discard removes what was fetched, but for these.
func (d *Dir) Discard(but []File) error {
	keep := make(map[string]bool, len(but))
	for _, f := range but {
		keep[f.Sum.String()] = true
	}
	dir, err := os.Open(d.work(filesDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if !keep[name] {
			if e := os.Remove(d.work(filesDir, name)); err == nil && !errors.Is(e, fs.ErrNotExist) {
				err = e
			}
		}
	}
	return err
}

// Read returns the content of a set's file; an error if the cadir has another one by now.
func (d *Dir) Read(s *Set, f File) ([]byte, error) {
	if data := s.Data(f.Path); data != nil {
		if sumOf(data) != f.Sum {
			return nil, fmt.Errorf("%s: %w", f.Path, errMoved)
		}
		return data, nil
	}
	data, _, err := readRegular(d.file(f.Path), maxCertificate)
	if err == nil && sumOf(data) != f.Sum {
		err = errMoved
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Path, err)
	}
	return data, nil
}
