package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

const (
	// defaultSocket is where a node's API listens, as its documentation has it.
	defaultSocket = "/run/puppetsrv/admin.sock"
	// systemSSLDir is Puppet's ssldir when it runs as root.
	systemSSLDir = "/etc/puppetlabs/puppet/ssl"
)

// connect makes the client that the flags ask for. Only https needs certificates.
func connect(f flags) (*admin.Client, error) {
	server := f.Server
	if server == "" {
		if _, err := os.Stat(defaultSocket); err != nil {
			return nil, fail(exitUsage, "no server was given, and this host has no %s\n"+
				"give --server https://HOST:8153 or --server unix:///PATH, or set PUPPETSRV_SERVER", defaultSocket)
		}
		server = "unix://" + defaultSocket
	}
	o := admin.ClientOptions{Timeout: time.Duration(f.Timeout)}
	if strings.HasPrefix(server, "https:") {
		files, err := certificates(f)
		if err != nil {
			return nil, err
		}
		if o.Identity, err = trust.LoadIdentity(files.cert, files.key); err != nil {
			return nil, err
		}
		if o.Authority, err = trust.Open(files.ca, files.crl); err != nil {
			return nil, err
		}
	}
	c, err := admin.NewClient(server, o)
	if err != nil {
		return nil, fail(exitUsage, "%v", err)
	}
	return c, nil
}

// files are those of a client of https; crl "" is none.
type files struct{ cert, key, ca, crl string }

// certificates finds the files: those given, the others in Puppet's ssldir.
func certificates(f flags) (files, error) {
	if (f.Cert == "") != (f.Key == "") {
		return files{}, fail(exitUsage, "--cert and --key (PUPPETSRV_CERT and PUPPETSRV_KEY) go together")
	}
	found := files{cert: f.Cert, key: f.Key, ca: f.CA, crl: f.CRL}
	dir := f.SSLDir
	if dir == "" {
		dir = defaultSSLDir()
	}
	if found.ca == "" {
		found.ca = filepath.Join(dir, "certs", "ca.pem")
		if !exists(found.ca) {
			return files{}, fail(exitUsage, "no CA certificate was given, and there is no %s: give --ca, or --ssldir", found.ca)
		}
		if crl := filepath.Join(dir, "crl.pem"); found.crl == "" && exists(crl) {
			found.crl = crl
		}
	}
	if found.cert != "" {
		return found, nil
	}
	name := f.Certname
	if name == "" {
		names := certnames(dir)
		switch len(names) {
		case 1:
			name = names[0]
		case 0:
			return files{}, fail(exitUsage, "no client certificate was given, and %s has none with a private key that can be read\n"+
				"give --cert and --key, or --ssldir, or run this as root", dir)
		default:
			return files{}, fail(exitUsage, "%s has several certificates with a private key: %s\ngive --certname", dir, strings.Join(names, ", "))
		}
	}
	found.cert, found.key = pair(dir, name)
	if !exists(found.cert) {
		return files{}, fail(exitUsage, "there is no certificate %s: give another --certname or --ssldir", found.cert)
	}
	return found, nil
}

// certnames are those in an ssldir that have both a certificate and a key. The
// directory's listing is sorted.
func certnames(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(dir, "certs"))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".pem")
		if !ok {
			continue
		}
		if _, key := pair(dir, name); exists(key) { // ca.pem has none
			names = append(names, name)
		}
	}
	return names
}

func pair(dir, name string) (cert, key string) {
	return filepath.Join(dir, "certs", name+".pem"), filepath.Join(dir, "private_keys", name+".pem")
}

// defaultSSLDir is the one that Puppet itself would use: root's is the system's,
// that of anybody else is at home, if there is one.
func defaultSSLDir() string {
	if os.Getuid() != 0 {
		if home, err := os.UserHomeDir(); err == nil {
			if dir := filepath.Join(home, ".puppetlabs", "etc", "puppet", "ssl"); exists(dir) {
				return dir
			}
		}
	}
	return systemSSLDir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
