package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const lookEvery = 100 * time.Millisecond

var namespaces = []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic}

// adminConfig is whole in itself: it can be copied, and outlives the folder.
func adminConfig(address string, keys *keys) clientcmdapi.Config {
	const name = "controlplane"
	return clientcmdapi.Config{
		CurrentContext: name,
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: "admin"}},
		Clusters: map[string]*clientcmdapi.Cluster{
			name: {Server: "https://" + address, CertificateAuthorityData: keys.authority},
		},
		AuthInfos: map[string]*clientcmdapi.AuthInfo{
			"admin": {ClientCertificateData: keys.admin, ClientKeyData: keys.adminKey},
		},
	}
}

func newClient(config clientcmdapi.Config) (*kubernetes.Clientset, error) {
	rest, err := clientcmd.NewDefaultClientConfig(config, nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(rest)
}

// awaitAPI waits until the API server says that it is ready.
func awaitAPI(ctx context.Context, client *kubernetes.Clientset) error {
	return await(ctx, "kube-apiserver", func() error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// awaitDefaults waits for what every cluster has, the ServiceAccount among it that a controller makes.
func awaitDefaults(ctx context.Context, client *kubernetes.Clientset) error {
	return await(ctx, "the default namespaces", func() error {
		for _, namespace := range namespaces {
			_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
			if err != nil {
				return fmt.Errorf("%s: %w", namespace, err)
			}
		}
		return nil
	})
}

func await(ctx context.Context, what string, check func() error) error {
	for {
		last := check()
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (waiting for %s; at last: %w)", context.Cause(ctx), what, last)
		case <-time.After(lookEvery):
		}
	}
}
