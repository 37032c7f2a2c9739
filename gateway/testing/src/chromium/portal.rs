//! What every test does that has the portal in a browser: signs in, and looks whether a page is fit to be seen.
//! Pictures come to lie in `target/portal`.

use std::path::Path;

use super::{Chromium, Page};
use crate::TestHub;

impl Chromium {
    /// A page on which somebody is signed in with the primary key of a policy.
    pub async fn signed_in(&'static self, hub: &TestHub, policy: &str) -> Page {
        let page = self.page(hub).await;
        assert_eq!(page.go("/portal").await, 200);
        let key = hub.hub.policies().find(policy).expect("a policy").keys.primary.to_base64();
        page.fill("#policy", policy).await;
        page.fill("#key", &key).await;
        assert_eq!(page.follow("form button.primary").await, 200);
        page.wait_for("form.out").await;
        page
    }
}

impl Page {
    /// Takes pictures of the page that is shown: light, dark, and as wide as a small telephone. In each way it must
    /// keep nobody out and do nothing wrong, and in the narrow one it must not be wider than what is seen.
    pub async fn look_at(&self, name: &str) {
        for scheme in ["light", "dark"] {
            self.scheme(scheme).await;
            assert_eq!(self.barriers().await, [""; 0], "{name} in {scheme}");
            self.picture(&format!("{name}-{scheme}")).await;
        }
        self.scheme("light").await;
        self.viewport(360, 740).await;
        assert_eq!(self.overflow().await, 0, "{name} is wider than a telephone");
        assert_eq!(self.barriers().await, [""; 0], "{name} on a telephone");
        self.picture(&format!("{name}-360")).await;
        self.viewport(1280, 800).await;
        assert_eq!(self.mishaps(), [""; 0], "{name}");
    }

    async fn picture(&self, name: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/portal");
        self.screenshot(&directory.join(format!("{name}.png"))).await;
    }
}
