package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const startTimeout = 2 * time.Minute

// Server is a Kubernetes API without a cluster, empty when it starts.
type Server struct {
	Config     *rest.Config // of one who may do anything
	Kubeconfig string       // a file that says the same

	programs []*program
}

// Start runs a server that keeps everything in dir. It ends with Stop.
func Start(ctx context.Context, dir string) (_ *Server, err error) {
	s := &Server{Kubeconfig: filepath.Join(dir, "kubeconfig")}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	const token = "admin"
	tokens, key := filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "accounts.key")
	if err := os.WriteFile(tokens, []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return nil, err
	}
	if err := writeKey(key); err != nil {
		return nil, err
	}
	etcd, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := s.run(ctx, dir, "server", // etcd's
		"--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", "http://"+etcd, "--advertise-client-urls", "http://"+etcd,
		"--listen-peer-urls", "http://127.0.0.1:0",
	); err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(address)
	certs := filepath.Join(dir, "certs")
	if err := s.run(ctx, dir, "kube-apiserver",
		"--etcd-servers", "http://"+etcd,
		"--bind-address", host, "--secure-port", port, "--cert-dir", certs,
		// Nobody asks for it, and a machine without a network has none to find.
		"--advertise-address", "192.0.2.1", "--endpoint-reconciler-type", "none",
		"--service-cluster-ip-range", "10.96.0.0/16",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--authorization-mode", "RBAC", "--token-auth-file", tokens,
	); err != nil {
		return nil, err
	}
	s.Config = &rest.Config{
		Host: "https://" + address, BearerToken: token, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(certs, "apiserver.crt")},
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	return s, clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"revcast": {
			Server: s.Config.Host, CertificateAuthority: s.Config.CAFile,
		}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"admin": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"revcast": {Cluster: "revcast", AuthInfo: "admin"}},
		CurrentContext: "revcast",
	}, s.Kubeconfig)
}

// Stop ends the server's processes.
func (s *Server) Stop() {
	for i := len(s.programs) - 1; i >= 0; i-- {
		s.programs[i].stop()
	}
}

func (s *Server) ready(ctx context.Context) error {
	return until(ctx, "the API server is ready", startTimeout, func() error {
		if err := s.ended(); err != nil {
			return final{err}
		}
		client, err := discovery.NewDiscoveryClientForConfig(s.Config)
		if err != nil {
			return err // it writes its certificate first
		}
		_, err = client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// ended says which of the programs did, by itself.
func (s *Server) ended() error {
	for _, p := range s.programs {
		select {
		case <-p.gone:
			return fmt.Errorf("%s ended: %v\n%s", p.name, p.err, p.output())
		default:
		}
	}
	return nil
}

// program is a process, and the file that it writes to.
type program struct {
	name, log string
	cmd       *exec.Cmd
	gone      chan struct{} // closed when it has ended
	err       error         // how
}

func (s *Server) run(ctx context.Context, dir, name string, args ...string) error {
	bin, err := Programs()
	if err != nil {
		return err
	}
	p := &program{name: name, log: filepath.Join(dir, name+".log"), gone: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	p.cmd = exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.gone)
	}()
	s.programs = append(s.programs, p)
	return nil
}

func (p *program) stop() {
	_ = p.cmd.Process.Kill() // what it keeps is thrown away
	<-p.gone
}

// output is the end of what a program wrote.
func (p *program) output() []byte {
	all, _ := os.ReadFile(p.log)
	return all[max(0, len(all)-4096):]
}

// final is an error that trying again doesn't mend.
type final struct{ error }

// until tries until it works.
func until(ctx context.Context, what string, limit time.Duration, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := try()
		if err == nil || errors.As(err, new(final)) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s: %w", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// writeKey makes the key that signs the tokens of service accounts.
func writeKey(file string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
