package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/util/keyutil"
)

// A day outlasts every test run.
const validity = 24 * time.Hour

// keys are what the parts know each other by: files in the folder, and what a kubeconfig holds, as PEM.
type keys struct {
	authorityFile      string
	serverFile         string
	serverKeyFile      string
	serviceAccountFile string

	authority []byte
	admin     []byte
	adminKey  []byte
}

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func makeKeys(folder string) (*keys, error) {
	made := &keys{
		authorityFile:      filepath.Join(folder, "ca.crt"),
		serverFile:         filepath.Join(folder, "server.crt"),
		serverKeyFile:      filepath.Join(folder, "server.key"),
		serviceAccountFile: filepath.Join(folder, "service-account.key"),
	}
	signer, err := newAuthority()
	if err != nil {
		return nil, err
	}
	made.authority = encode(signer.certificate.Raw)
	server, serverKey, err := signer.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		IPAddresses: []net.IP{net.ParseIP(loopback)},
	})
	if err != nil {
		return nil, err
	}
	// RBAC lets the group system:masters do everything.
	made.admin, made.adminKey, err = signer.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	_, serviceAccountKey, err := newKey()
	if err != nil {
		return nil, err
	}
	for path, content := range map[string][]byte{
		made.authorityFile:      made.authority,
		made.serverFile:         server,
		made.serverKeyFile:      serverKey,
		made.serviceAccountFile: serviceAccountKey,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func newAuthority() (*authority, error) {
	key, _, err := newKey()
	if err != nil {
		return nil, err
	}
	// Python 3.13 refuses an authority without keyUsage (ssl.VERIFY_X509_STRICT).
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "controlplane"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	certificate, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &authority{certificate, key}, nil
}

// issue makes a key and a certificate for it, both as PEM.
func (a *authority) issue(template *x509.Certificate) (certificate, encodedKey []byte, err error) {
	key, encodedKey, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	signed, err := sign(template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	return encode(signed.Raw), encodedKey, nil
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().Add(validity)
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(raw)
}

func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	encoded, err := keyutil.MarshalPrivateKeyToPEM(key)
	return key, encoded, err
}

func encode(certificate []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
}
