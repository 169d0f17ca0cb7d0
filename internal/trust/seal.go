package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Identity is a Puppet certificate with its key.
type Identity struct {
	Certificate tls.Certificate
	Leaf        *x509.Certificate
	Name        string // the certname
}

// LoadIdentity reads a certificate and its key from PEM files, as Puppet keeps them.
func LoadIdentity(certFile, keyFile string) (*Identity, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return NewIdentity(pair)
}

// NewIdentity is the identity of a key pair that can sign.
func NewIdentity(pair tls.Certificate) (*Identity, error) {
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	if _, ok := pair.PrivateKey.(crypto.Signer); !ok {
		return nil, fmt.Errorf("the key of %s cannot sign", Certname(leaf))
	}
	if Certname(leaf) == "" {
		return nil, errors.New("the certificate has no common name")
	}
	return &Identity{Certificate: pair, Leaf: leaf, Name: Certname(leaf)}, nil
}

// Sealed is a payload with the proof of who wrote it.
type Sealed struct {
	Payload     []byte `json:"payload"`
	Certificate []byte `json:"certificate"` // DER
	Signature   []byte `json:"signature"`
}

// digest is what is signed. The kind keeps a payload of one use from being taken
// for one of another.
func digest(kind string, payload []byte) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "puppetsrv seal 1\n%s\n%d\n", kind, len(payload))
	h.Write(payload)
	return h.Sum(nil)
}

// Seal signs payload as something of kind, a word of its own for each use. RSA keys
// sign by RSASSA-PSS with SHA-256 (RFC 8017, section 8.1), others by their own scheme.
func (id *Identity) Seal(kind string, payload []byte) (Sealed, error) {
	var opts crypto.SignerOpts = crypto.SHA256
	signer := id.Certificate.PrivateKey.(crypto.Signer)
	switch signer.Public().(type) {
	case *rsa.PublicKey:
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	case ed25519.PublicKey:
		opts = crypto.Hash(0)
	}
	signature, err := signer.Sign(rand.Reader, digest(kind, payload), opts)
	if err != nil {
		return Sealed{}, fmt.Errorf("signing as %s: %w", id.Name, err)
	}
	return Sealed{Payload: payload, Certificate: id.Leaf.Raw, Signature: signature}, nil
}

// Unseal returns the certname that sealed s as something of kind. The certificate
// must have been valid at a time, which is the writer's own where the seal is older
// than today, and must not be revoked now.
func (a *Authority) Unseal(kind string, s Sealed, at time.Time) (certname string, err error) {
	leaf, err := x509.ParseCertificate(s.Certificate)
	if err != nil {
		return "", fmt.Errorf("the seal's certificate: %w", err)
	}
	if err := a.Verify(leaf, nil, at); err != nil {
		return "", err
	}
	sum := digest(kind, s.Payload)
	ok := false
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		ok = rsa.VerifyPSS(key, crypto.SHA256, sum, s.Signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, sum, s.Signature)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, sum, s.Signature)
	}
	if !ok {
		return "", fmt.Errorf("the signature is not %s's", Certname(leaf))
	}
	return Certname(leaf), nil
}
