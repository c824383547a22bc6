// Command controlplane runs a Kubernetes control plane for tests: etcd, kube-apiserver, and the controllers whose
// work tests look at, all in one process, on loopback, without root. There are no nodes: pods stay pending.
//
// It says "ready" on standard output once it can be used. It ends by SIGTERM and SIGINT, and when its standard
// input ends: the pipe of a test run that was killed closes, however it was killed. Nothing is left then, since
// all it writes, the kubeconfig apart, is in one temporary folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

const (
	loopback = "127.0.0.1"

	// On an idle machine it is ready within ten seconds; tests may compile beside it.
	startSeconds = 120
)

// errAsked is the one good reason to end.
var errAsked = errors.New("asked to end")

type settings struct {
	kubeconfig string
	folder     string
	port       int
}

func main() {
	var given settings
	flag.StringVar(&given.kubeconfig, "kubeconfig", "", "write the administrator's kubeconfig to this `file`")
	flag.StringVar(&given.folder, "folder", os.TempDir(), "make the temporary folder in this `folder`")
	flag.IntVar(&given.port, "port", 0, "serve the API on this `port` of 127.0.0.1; 0 takes a free one")
	flag.Parse()
	if given.kubeconfig == "" || flag.NArg() > 0 {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: controlplane -kubeconfig file [-folder folder] [-port port]")
		os.Exit(2)
	}
	ctx, end := context.WithCancelCause(context.Background())
	go endWhenAsked(end)
	if err := run(ctx, end, given); !errors.Is(err, errAsked) {
		fmt.Fprintf(os.Stderr, "controlplane: %v\n", err)
		os.Exit(1)
	}
}

func endWhenAsked(end context.CancelCauseFunc) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(closed)
	}()
	select {
	case <-signals:
	case <-closed:
	}
	end(errAsked)
}

// run serves until the context ends, and returns why it did.
func run(ctx context.Context, end context.CancelCauseFunc, given settings) error {
	folder, err := os.MkdirTemp(given.folder, "controlplane-")
	if err != nil {
		return err
	}
	defer removeAll(folder)

	listener, err := net.Listen("tcp", net.JoinHostPort(loopback, fmt.Sprint(given.port)))
	if err != nil {
		return fmt.Errorf("the API's port: %w", err)
	}
	keys, err := makeKeys(folder)
	if err != nil {
		return fmt.Errorf("keys and certificates: %w", err)
	}
	admin := adminConfig(listener.Addr().String(), keys)
	ownConfig := filepath.Join(folder, "kubeconfig")
	if err := clientcmd.WriteToFile(admin, ownConfig); err != nil {
		return err
	}
	etcd, err := startEtcd(filepath.Join(folder, "etcd"))
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	go func() { end(fmt.Errorf("etcd ended: %w", <-etcd.Err())) }()
	go func() { end(ended("kube-apiserver", runAPIServer(ctx, listener, etcdAddress(etcd), keys))) }()

	starting, stop := context.WithTimeoutCause(ctx, startSeconds*time.Second,
		fmt.Errorf("not ready after %d s", startSeconds))
	defer stop()
	client, err := newClient(admin)
	if err != nil {
		return err
	}
	if err := awaitAPI(starting, client); err != nil {
		return err
	}
	go func() { end(ended("kube-controller-manager", runControllers(ctx, ownConfig, keys))) }()
	if err := awaitDefaults(starting, client); err != nil {
		return err
	}
	if err := clientcmd.WriteToFile(admin, given.kubeconfig); err != nil {
		return err
	}
	fmt.Println("ready")
	<-ctx.Done()
	return context.Cause(ctx)
}

func ended(name string, err error) error {
	if err == nil {
		err = errors.New("it stopped without an error")
	}
	return fmt.Errorf("%s ended: %w", name, err)
}

// removeAll does not wait for etcd to end in order, since its data goes with it; but a file that etcd makes while
// its folder is being removed takes another try.
func removeAll(folder string) {
	for range 10 {
		if os.RemoveAll(folder) == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}
