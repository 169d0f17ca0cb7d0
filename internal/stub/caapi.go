package stub

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
)

// maxRequest bounds what is read of a request's body, in bytes.
const maxRequest = 64 << 10

// cliAuth is Puppet's extension pp_cli_auth, which auth.conf wants of who signs and
// revokes.
var cliAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 34380, 1, 3, 39}

// serveCA is puppetserver's CA service, whose routes are not there while it is off.
func (m *Master) serveCA(w http.ResponseWriter, r *http.Request) {
	if !m.caIsOn() {
		http.NotFound(w, r)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/puppet-ca/v1/")
	resource, name, _ := strings.Cut(path, "/")
	var err error
	switch resource + " " + r.Method {
	case "certificate_request PUT":
		err = m.submit(w, r, name)
	case "certificate_request GET":
		err = m.show(w, r, requestsName, name, "Could not find certificate_request "+name)
	case "certificate GET":
		if name == "ca" {
			err = m.showFile(w, r, caCertName)
			break
		}
		err = m.show(w, r, signedName, name, "Could not find certificate "+name)
	case "certificate_revocation_list GET":
		err = m.showFile(w, r, caCRLName)
	case "certificate_status PUT", "certificate_status DELETE":
		if !mayAdminister(m.client(r)) {
			forbid(w, r)
			return
		}
		err = m.status(w, r, name)
	default:
		http.NotFound(w, r)
	}
	if err != nil {
		explain(w, err)
	}
}

// mayAdminister reports whether a certificate has pp_cli_auth = true.
func mayAdminister(c *x509.Certificate) bool {
	if c == nil {
		return false
	}
	for _, e := range c.Extensions {
		var value string
		if e.Id.Equal(cliAuth) {
			_, err := asn1.Unmarshal(e.Value, &value)
			return err == nil && value == "true"
		}
	}
	return false
}

func (m *Master) submit(w http.ResponseWriter, r *http.Request, name string) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return &refusal{http.StatusBadRequest, err.Error()}
	}
	if err := m.cadir.Submit(name, body); err != nil {
		return err
	}
	answer(w, http.StatusOK, "")
	return nil
}

func (m *Master) status(w http.ResponseWriter, r *http.Request, name string) error {
	var err error
	if r.Method == http.MethodDelete {
		err = m.cadir.Clean(name)
	} else {
		var wanted struct {
			State string `json:"desired_state"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&wanted); err != nil {
			return &refusal{http.StatusBadRequest, "Request body is not JSON."}
		}
		switch wanted.State {
		case "revoked":
			err = m.cadir.Revoke(name)
		case "signed":
			err = m.cadir.Sign(name)
		default:
			return &refusal{http.StatusBadRequest, fmt.Sprintf("State %s invalid; Must specify desired state of ''signed'' or ''revoked'' for host %s.", wanted.State, name)}
		}
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// show answers with the file of a certname.
func (m *Master) show(w http.ResponseWriter, r *http.Request, dir, name, absent string) error {
	if !certname.MatchString(name) || !m.cadir.exists(dir, name+".pem") {
		return &refusal{http.StatusNotFound, absent}
	}
	return m.showFile(w, r, dir, name+".pem")
}

// showFile answers with a file, or with 304 if it is no newer than what who asks has.
func (m *Master) showFile(w http.ResponseWriter, r *http.Request, name ...string) error {
	content, err := m.cadir.read(name...)
	if err != nil {
		return err
	}
	if fi, err := os.Stat(m.cadir.path(name...)); err == nil {
		since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
		if err == nil && fi.ModTime().Unix() <= since.Unix() {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	answer(w, http.StatusOK, string(content))
	return nil
}

// explain answers with an error in puppetserver's words: what is no refusal is an
// exception of Java's, and HTTP 500.
func explain(w http.ResponseWriter, err error) {
	if r := (*refusal)(nil); errors.As(err, &r) {
		answer(w, r.code, r.body)
		return
	}
	text := err.Error()
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		switch {
		case errors.Is(err, fs.ErrPermission):
			text = fmt.Sprintf("java.io.FileNotFoundException: %s (Permission denied)", p.Path)
		case errors.Is(err, fs.ErrNotExist):
			text = fmt.Sprintf("java.io.FileNotFoundException: %s (No such file or directory)", p.Path)
		}
	}
	answer(w, http.StatusInternalServerError, "Internal Server Error: "+text)
}
