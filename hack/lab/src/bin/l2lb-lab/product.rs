//! The product in a lab for people: its definitions, its controller, and a
//! namespace to order load balancers in.

use std::path::PathBuf;

use anyhow::{Context, Result};
use l2lb_lab::{Lab, Process, Spec};

/// The namespace of testdata/demo.
const SHOP: &str = "shop";

/// The controller, which is built beside this program.
pub fn controller() -> Result<PathBuf> {
    let path = std::env::current_exe()
        .context("finding this program")?
        .with_file_name("l2lb-controller");
    path.is_file().then_some(path).context(
        "l2lb-controller is not built: cargo build --workspace --bins (--bare does without it)",
    )
}

/// Installs the product. It runs until what this returns is dropped.
pub async fn install(lab: &Lab) -> Result<Process> {
    lab.install_product_crds().await?;
    let spec = Spec::new("l2lb-controller", controller()?).args(["--listen=127.0.0.1:8080"]);
    let controller = lab.start(spec)?;
    lab.kubectl().run(["create", "namespace", SHOP]).await?;
    lab.deploy_backend(SHOP, "web", 8080).await?;
    Ok(controller)
}

/// What a person can do with it at once.
pub fn hints(dual_stack: bool) -> String {
    let stack = if dual_stack { "-dual-stack" } else { "" };
    format!(
        "\
  kubectl apply -f testdata/demo/pool{stack}.yaml -f testdata/demo/load-balancer{stack}.yaml
                                       an L2AddressPool, and an L2LoadBalancer in namespace {SHOP}
  kubectl get l2lb -A                  what became of it; kubectl l2lb status shows more
  curl -s 127.0.0.1:8080/metrics       l2lb-controller's metrics
"
    )
}

/// What a person can do without it.
pub const BARE: &str = "\
  kubectl apply -f testdata/lab/handwritten.yaml
                                       three Services, each on a node of its own, by hand
";
