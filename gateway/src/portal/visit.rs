//! A request of a signed-in caller, and what a page needs to know of the caller.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use maud::Markup;
use portcullis_registry::policy::Rights;

use super::Portal;
use super::answer::RefusedPage;
use super::csrf::CsrfToken;
use super::sign_in::{Notice, NoticeKind, SignInKey};
use crate::auth::VerifiedService;
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::operations::logins;

/// One request. Only `guard` makes one, for a valid sign-in.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    portal: Arc<Portal>,
    service: VerifiedService,
    sign_in: SignInKey,
    token: CsrfToken,
}

impl Visit {
    pub(super) fn new(
        portal: Arc<Portal>,
        service: VerifiedService,
        sign_in: SignInKey,
        token: CsrfToken,
    ) -> Self {
        Self { portal, service, sign_in, token }
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.portal.hub
    }

    /// The service for which every operation is called.
    pub(super) fn service(&self) -> &VerifiedService {
        &self.service
    }

    /// Whether the policy has every one of these rights. Decides what a page offers, not what the hub allows.
    pub(super) fn may(&self, rights: Rights) -> bool {
        self.service.rights().contains(rights)
    }

    /// The hidden field that every form has.
    pub(super) fn token_field(&self) -> Markup {
        self.token.field()
    }

    pub(super) fn token(&self) -> &CsrfToken {
        &self.token
    }

    /// Whether the sign-in is still valid. An answer that lasts long must ask now and then, and whenever the policies
    /// change.
    pub(super) fn still_holds(&self) -> bool {
        logins::service_still_holds(self.hub(), &self.service)
            && self.portal.sign_ins.is_open(self.sign_in, self.hub().clock.now().monotonic)
    }

    /// Shows on the next page that something was done.
    pub(super) fn flash(&self, text: impl Into<String>) {
        self.notice(NoticeKind::Done, text.into());
    }

    /// Shows on the next page that something was not done.
    pub(super) fn flash_failure(&self, text: impl Into<String>) {
        self.notice(NoticeKind::Failed, text.into());
    }

    /// The message that the previous page left.
    pub(super) fn take_notice(&self) -> Option<Notice> {
        self.portal.sign_ins.take_notice(self.sign_in)
    }

    pub(super) fn sign_out(&self) {
        self.portal.sign_ins.end(self.sign_in);
    }

    fn notice(&self, kind: NoticeKind, text: String) {
        self.portal.sign_ins.flash(self.sign_in, Notice { kind, text });
    }
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = RefusedPage;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RefusedPage> {
        let visit = parts.extensions.get::<Self>().cloned();
        visit.ok_or_else(|| {
            RefusedPage(Problem::internal("a page that needs a sign-in was reached without the guard"))
        })
    }
}
