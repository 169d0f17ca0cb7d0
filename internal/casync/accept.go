package casync

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// acceptable says why a file of CRLs must not replace an old one: each list has to be
// signed by the host's CA, and none may be older, or miss a revocation, without a higher
// number. An old file that cannot be read is replaced by any.
func acceptable(data, old, ca []byte) error {
	var cas []*x509.Certificate
	for block := range blocks(ca, "CERTIFICATE") {
		c, err := x509.ParseCertificate(block)
		if err != nil {
			return fmt.Errorf("the host's CA: %w", err)
		}
		cas = append(cas, c)
	}
	lists, err := parseLists(data)
	if err != nil {
		return err
	}
	for _, list := range lists {
		if !signedByOne(list, cas) {
			return fmt.Errorf("the list of %q is not signed by the host's CA", list.Issuer.CommonName)
		}
	}
	before, err := parseLists(old)
	if err != nil {
		return nil
	}
	for _, was := range before {
		if !signedByOne(was, cas) {
			continue // of a CA that is no more
		}
		if err := newer(was, lists); err != nil {
			return err
		}
	}
	return nil
}

// newer says which list does not follow upon was.
func newer(was *x509.RevocationList, lists []*x509.RevocationList) error {
	for _, is := range lists {
		if string(is.RawIssuer) != string(was.RawIssuer) {
			continue
		}
		order := 0
		if was.Number != nil {
			if is.Number == nil {
				return fmt.Errorf("the list of %q has no number, and the host's has %v", was.Issuer.CommonName, was.Number)
			}
			order = is.Number.Cmp(was.Number)
		}
		if order < 0 {
			return fmt.Errorf("the list of %q is number %v, and the host has number %v: what was revoked in between has to be revoked on the camaster again", was.Issuer.CommonName, is.Number, was.Number)
		}
		if order > 0 {
			return nil
		}
		revoked := make(map[string]bool, len(is.RevokedCertificateEntries))
		for _, e := range is.RevokedCertificateEntries {
			revoked[e.SerialNumber.String()] = true
		}
		for _, e := range was.RevokedCertificateEntries {
			if !revoked[e.SerialNumber.String()] {
				return fmt.Errorf("the list of %q has the host's number %v, and does not revoke serial %X: revoke it on the camaster again", was.Issuer.CommonName, was.Number, e.SerialNumber)
			}
		}
		if is.ThisUpdate.Before(was.ThisUpdate) {
			return fmt.Errorf("the list of %q is older than the host's", was.Issuer.CommonName)
		}
		return nil
	}
	return fmt.Errorf("it has no list of %q, and the host's has", was.Issuer.CommonName)
}

func parseLists(data []byte) ([]*x509.RevocationList, error) {
	const most = 16 // CAs in a chain
	var lists []*x509.RevocationList
	for block := range blocks(data, "X509 CRL") {
		if len(lists) == most {
			return nil, fmt.Errorf("more than %d CRLs in it", most)
		}
		list, err := x509.ParseRevocationList(block)
		if err != nil {
			return nil, fmt.Errorf("list %d: %w", len(lists)+1, err)
		}
		lists = append(lists, list)
	}
	if len(lists) == 0 || len(lists) != strings.Count(string(data), "-----BEGIN X509 CRL-----") {
		return nil, errors.New("there is no whole PEM CRL in it")
	}
	return lists, nil
}

// blocks are the PEM blocks of a type.
func blocks(data []byte, kind string) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for {
			var block *pem.Block
			if block, data = pem.Decode(data); block == nil {
				return
			}
			if block.Type == kind && !yield(block.Bytes) {
				return
			}
		}
	}
}

func signedByOne(list *x509.RevocationList, cas []*x509.Certificate) bool {
	for _, ca := range cas {
		if string(list.RawIssuer) == string(ca.RawSubject) && list.CheckSignatureFrom(ca) == nil {
			return true
		}
	}
	return false
}

func readCRL(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if s, err := f.Stat(); err != nil || !s.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", path))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxCRL+1))
	if err == nil && len(data) > maxCRL {
		err = fmt.Errorf("%s has more than %d bytes", path, maxCRL)
	}
	return data, err
}

// replaceFile replaces a file by rename, in its directory, with the owner and mode that
// it has. The directory may be puppetserver's: nothing that lies there is followed.
func replaceFile(path string, data []byte, modified time.Time) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, "."+filepath.Base(path)+".puppetsrv")
	var owner unix.Stat_t
	mode := uint32(0o644)
	if err := unix.Lstat(path, &owner); err == nil {
		mode = uint32(owner.Mode) & 0o777
	} else if err := unix.Stat(dir, &owner); err != nil {
		return err
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temp)
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if int(owner.Uid) != os.Geteuid() || int(owner.Gid) != os.Getegid() {
		if err = f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	if err = unix.Fchmod(int(f.Fd()), mode); err != nil {
		return err
	}
	if !modified.IsZero() {
		// An agent asks for what is newer than its file (If-Modified-Since).
		at := unix.NsecToTimespec(modified.UnixNano())
		if err = unix.UtimesNanoAt(unix.AT_FDCWD, temp, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(temp, path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
