package stub

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// The names in a cadir, and the modes that puppetserver gives its files.
const (
	caCertName    = "ca_crt.pem"
	caKeyName     = "ca_key.pem"
	caPubName     = "ca_pub.pem"
	caCRLName     = "ca_crl.pem"
	infraCRLName  = "infra_crl.pem"
	infraListName = "infra_inventory.txt"
	infraSerials  = "infra_serials"
	inventoryName = "inventory.txt"
	serialName    = "serial"
	signedName    = "signed"
	requestsName  = "requests"

	publicMode  = 0o644
	privateMode = 0o640
	dirMode     = 0o750
)

// CADir is a Puppet CA that has everything in files and keeps nothing in memory, as
// puppetserver's: what is done to the files counts from the next request on. Its methods
// are safe for concurrent use; like puppetserver's, its lock is its own, and two on one
// directory are not protected from each other.
//
// All of a test or playground runs as one user, often root, who may read anything. So
// a CADir refuses to read what the directory's owner could not: that owner is puppet, and
// a file that is closed to puppet is how a standby is sealed.
type CADir struct {
	dir string
	mu  sync.Mutex
}

// OpenCADir has a directory that NewCADir has made, or that is to be filled.
func OpenCADir(path string) *CADir { return &CADir{dir: path} }

// NewCADir writes a CA to a directory as `puppetserver ca setup` leaves one: with every
// certificate that ca has issued in its inventory and under signed/, and what it has
// revoked in its CRL. From then on ca itself issues and revokes nothing more: the
// numbers are counted on the disk.
func NewCADir(path string, ca *CA) (*CADir, error) {
	d := OpenCADir(path)
	files, err := ca.handOver(path)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{".", signedName, requestsName} {
		if err := os.MkdirAll(d.path(name), dirMode); err != nil {
			return nil, fmt.Errorf("making a cadir: %w", err)
		}
	}
	for _, f := range files {
		if err := d.replace(f.name, f.content, f.mode); err != nil {
			return nil, fmt.Errorf("making a cadir: %w", err)
		}
	}
	return d, nil
}

// Path is the directory.
func (d *CADir) Path() string { return d.dir }

func (d *CADir) path(name ...string) string {
	return filepath.Join(append([]string{d.dir}, name...)...)
}

// check says whether puppetserver starts with these files. It does with none, though
// what it then makes of them is another CA; and with a serial that it cannot read.
func (d *CADir) check() error {
	var missing []error
	all := []string{caCertName, caKeyName, caCRLName, inventoryName, serialName}
	for _, name := range all {
		if _, err := os.Stat(d.path(name)); err != nil {
			missing = append(missing, err)
		}
	}
	switch len(missing) {
	case len(all):
		return nil
	case 0:
		// It opens the key file at its start, and ends where it may not.
		_, err := d.read(caKeyName)
		return err
	}
	return fmt.Errorf("cannot initialize CA with partial state; need all files or none: %w", errors.Join(missing...))
}

// read reads a file as the owner of the directory could.
func (d *CADir) read(name ...string) ([]byte, error) {
	path := d.path(name...)
	dir, err := ownerOf(d.dir)
	if err != nil {
		return nil, err
	}
	file, err := ownerOf(path)
	if err != nil {
		return nil, err
	}
	bit := fs.FileMode(0o004)
	switch {
	case file.uid == dir.uid:
		bit = 0o400
	case file.gid == dir.gid:
		bit = 0o040
	}
	if file.mode&bit == 0 {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	return os.ReadFile(path)
}

func (d *CADir) exists(name ...string) bool {
	_, err := os.Stat(d.path(name...))
	return err == nil
}

// replace writes a file whole. It belongs to the directory's owner, as if puppet had
// written it: also a serial that was sealed in the meantime, which is how the real one
// undoes a seal that comes between its reading and its writing.
func (d *CADir) replace(name string, content []byte, mode fs.FileMode) error {
	o, err := ownerOf(d.dir)
	if err != nil {
		return err
	}
	return replace(d.path(name), content, mode, &o)
}

// replace writes a file beside another and renames it over that. The temporary name is
// of the form of Java's Files.createTempFile, as puppetserver leaves it there when it is
// killed. With an owner the file is theirs, if this process may give files away.
func replace(path string, content []byte, mode fs.FileMode, o *owner) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"*tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Chmod(mode); err != nil {
		return err
	}
	if o != nil && os.Geteuid() == 0 {
		if err = f.Chown(o.uid, o.gid); err != nil {
			return err
		}
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

type owner struct {
	uid, gid int
	mode     fs.FileMode
}

func ownerOf(path string) (owner, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return owner{}, err
	}
	sys, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return owner{}, fmt.Errorf("finding the owner of %s: not on this system", path)
	}
	return owner{int(sys.Uid), int(sys.Gid), fi.Mode().Perm()}, nil
}

// keys reads the CA's certificate, of several the one that the key is for, and the key.
func (d *CADir) keys() (*x509.Certificate, crypto.Signer, error) {
	content, err := d.read(caKeyName)
	if err != nil {
		return nil, nil, err
	}
	key, err := parseKey(content)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.path(caKeyName), err)
	}
	if content, err = d.read(caCertName); err != nil {
		return nil, nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.path(caKeyName), err)
	}
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return nil, nil, fmt.Errorf("%s: no certificate of the key in %s", d.path(caCertName), caKeyName)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", d.path(caCertName), err)
		}
		if bytes.Equal(cert.RawSubjectPublicKeyInfo, public) {
			return cert, key, nil
		}
	}
}

// parseKey reads a key as openssl and puppetserver write them.
func parseKey(content []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return nil, errors.New("no private key in it")
		}
		switch block.Type {
		case "EC PRIVATE KEY":
			return x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			return x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
			return nil, fmt.Errorf("a %T cannot sign", key)
		}
	}
}
